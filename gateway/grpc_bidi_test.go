package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"gatewayd/gateway/http1"
	"gatewayd/gateway/routes"
)

// talkService is a service whose one call goes to and fro: it answers each message with the message and how many there were, and says
// in its trailer how many there were in all.
var talkService = grpc.ServiceDesc{
	ServiceName: "test.Talk",
	HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{
		StreamName: "Talk", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, s grpc.ServerStream) error {
			for n := 0; ; n++ {
				var m wrapperspb.StringValue
				switch err := s.RecvMsg(&m); {
				case errors.Is(err, io.EOF):
					s.SetTrailer(metadata.Pairs("x-messages", fmt.Sprint(n)))
					return nil
				case err != nil:
					return err
				}
				if err := s.SendMsg(wrapperspb.String(fmt.Sprint(n, " ", m.Value))); err != nil {
					return err
				}
			}
		},
	}},
}

// TestGRPCBothWays has a real client and a real service speak in turns on one call over HTTP/2 on both sides: each message is made of
// the answer before, so that none can wait for the next. Between two, the guest is silent for longer than a request's body may be.
func TestGRPCBothWays(t *testing.T) {
	const turns = 50
	w := newWorld(t, nil)
	w.names.set("rpc.test", "127.0.0.1")
	w.g.engine.body = http1.Limits{BodyIdle: 50 * time.Millisecond}
	cert := w.roots.leaf(t, time.Now().Add(time.Hour), "rpc.test")
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert)))
	server.RegisterService(&talkService, struct{}{})
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(server.Stop)
	port := addrPortOf(l.Addr()).Port()
	b := testBottle(t, routes.Route{Host: "rpc.test", Port: port})
	w.apply(t, b)
	conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///rpc.test:%d", port),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: bottlePool(t, b), ServerName: "rpc.test"})),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return w.sockets.tryCall(t, b.Link, anywhere(port)) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	call, err := conn.NewStream(soon(t), &talkService.Streams[0], "/test.Talk/Talk")
	if err != nil {
		t.Fatal(err)
	}
	said := "hello"
	for n := range turns {
		if err := call.SendMsg(wrapperspb.String(said)); err != nil {
			t.Fatalf("turn %d: %v", n, err)
		}
		var m wrapperspb.StringValue
		if err := call.RecvMsg(&m); err != nil {
			t.Fatalf("turn %d: %v", n, err)
		}
		if want := fmt.Sprint(n, " ", said); m.Value != want {
			t.Fatalf("turn %d: got %q, want %q", n, m.Value, want)
		}
		said = m.Value[len(m.Value)-min(len(m.Value), 200):]
		if n == turns/2 {
			time.Sleep(4 * w.g.engine.body.BodyIdle) // a silence that must not matter
		}
	}
	if err := call.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := call.RecvMsg(&wrapperspb.StringValue{}); !errors.Is(err, io.EOF) {
		t.Errorf("the call ended with %v", err)
	}
	if got := call.Trailer().Get("x-messages"); len(got) != 1 || got[0] != fmt.Sprint(turns) {
		t.Errorf("the trailer says %q messages, want %d", got, turns)
	}
	if r := w.records.wait(t, func(r Record) bool { return r.Type == RecordRequest && r.Path == "/test.Talk/Talk" }); r.Status != 200 || r.Error != "" || r.ALPN != "h2" {
		t.Errorf("record %+v", r)
	}
}

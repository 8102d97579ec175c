package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"gatewayd/gateway/routes"
)

// TestGRPC runs a real gRPC client against a real service: calls, a stream, trailers, a response that is all trailers, and
// a denial that the client shows as what it is.
func TestGRPC(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("rpc.test", "127.0.0.1")
	cert := w.roots.leaf(t, time.Now().Add(time.Hour), "rpc.test")
	auth := make(chan []string, 10)
	server := grpc.NewServer(
		grpc.Creds(credentials.NewServerTLSFromCert(&cert)),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			auth <- md.Get("authorization")
			grpc.SetTrailer(ctx, metadata.Pairs("x-echo", canarySecret))
			return handler(ctx, req)
		}),
	)
	service := health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, service)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(server.Stop)
	port := addrPortOf(l.Addr()).Port()
	r := authRoute(t, "rpc.test", port)
	r.Paths = []string{"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"}
	b := testBottle(t, r)
	w.apply(t, b)

	conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///rpc.test:%d", port),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: bottlePool(t, b), ServerName: "rpc.test"})),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return w.sockets.tryCall(t, b.Link, anywhere(port)) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := grpc_health_v1.NewHealthClient(conn)
	var trailer metadata.MD
	got, err := c.Check(soon(t), &grpc_health_v1.HealthCheckRequest{}, grpc.Trailer(&trailer))
	if err != nil || got.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("got %v, %v", got, err)
	}
	if a := <-auth; len(a) != 1 || a[0] != "Bearer "+canarySecret {
		t.Errorf("the service saw %q", a)
	}
	if e := trailer.Get("x-echo"); len(e) != 1 || e[0] != strings.Repeat("*", len(canarySecret)) {
		t.Errorf("the trailer is %q", e)
	}
	if _, err = c.Check(soon(t), &grpc_health_v1.HealthCheckRequest{Service: "unknown"}); status.Code(err) != codes.NotFound {
		t.Errorf("a response that is all trailers: %v", err)
	}
	<-auth
	stream, err := c.Watch(soon(t), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []grpc_health_v1.HealthCheckResponse_ServingStatus{grpc_health_v1.HealthCheckResponse_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING} {
		m, err := stream.Recv()
		if err != nil || m.Status != want {
			t.Fatalf("stream: %v, %v; want %v", m, err, want)
		}
		service.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	}
	_, err = c.List(soon(t), &grpc_health_v1.HealthListRequest{})
	if s, _ := status.FromError(err); s.Code() != codes.PermissionDenied || !strings.Contains(s.Message(), "does not allow this path") || !strings.Contains(s.Message(), "/grpc.health.v1.Health/List") {
		t.Errorf("a denied call: %v", err)
	}
	w.records.wait(t, func(r Record) bool { return r.Type == RecordRequest && r.Reason == routes.PathDenied && r.ALPN == "h2" })
}

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"gatewayd/lab"
	"gatewayd/lab/privileged"
)

// sseEvents is how many events a stream has.
const sseEvents = 30

const streamsManifest = `
egress:
  routes:
    - host: plain.example.org
    - host: api.example.org
      auth: { scheme: bearer, secret: { env: API_TOKEN } }
    - host: direct.example.org
      pipelock: { tls_passthrough: true }
`

// streamsBench serves everything that takes time at three hosts: one that is
// scanned, one that gets a credential, one that is passed through.
func streamsBench(t testing.TB) (b *bench, hosts []string) {
	t.Helper()
	b = newBench(t, nil)
	b.Gateway.Env = append(b.Gateway.Env, "API_TOKEN="+apiToken)
	hosts = []string{"plain.example.org", "api.example.org", "direct.example.org"}
	b.serve(&lab.Site{Names: hosts, Handler: streamHandler(), Forgets: true})
	b.start(streamsManifest)
	trustInternet(b)
	return b, hosts
}

// trustInternet makes the bottle trust the internet's own authority as well,
// for hosts that are passed through.
func trustInternet(b *bench) {
	b.t.Helper()
	bundle := b.guestEnv("SSL_CERT_FILE")
	text, err := readAndAppend(bundle, b.Internet.CA.PEM())
	if err != nil {
		b.t.Fatal(err)
	}
	writeFile(b.t, bundle, text)
}

func streamHandler() http.Handler {
	mux := http.NewServeMux()
	acks := make(chan string)
	mux.HandleFunc("GET /sse", func(w http.ResponseWriter, r *http.Request) { serveEvents(w, r, acks) })
	mux.HandleFunc("POST /sse/ack", func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body) // an empty one is wrong too
		select {
		case acks <- string(b):
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("GET /ws", serveSocket)
	mux.HandleFunc("GET /interim", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body") // the client has gone
		w.Header().Set("X-Sum", "42")
	})
	mux.HandleFunc("POST /duplex", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 always is
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			fmt.Fprintln(w, lines.Text())
			w.(http.Flusher).Flush()
		}
	})
	mux.Handle("POST /grpc.health.v1.Health/", healthHandler())
	mux.HandleFunc("GET /bulk/down", serveDown)
	mux.HandleFunc("POST /bulk/up", serveUp)
	return mux
}

// serveEvents sends each event when the one before it was acknowledged.
func serveEvents(w http.ResponseWriter, r *http.Request, acks <-chan string) {
	w.Header().Set("Content-Type", "text/event-stream")
	for n := range sseEvents {
		fmt.Fprintf(w, "id: %d\ndata: %d\n\n", n, n)
		w.(http.Flusher).Flush()
		select {
		case got := <-acks:
			if got != strconv.Itoa(n) {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// serveSocket sends every message back.
func serveSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionContextTakeover})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(4 << 20)
	for {
		kind, msg, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, msg) != nil {
			return
		}
	}
}

// serveDown sends n bytes, and their sum in the trailers.
func serveDown(w http.ResponseWriter, r *http.Request) {
	size, _ := strconv.ParseInt(r.FormValue("n"), 10, 64) // zero is wrong too
	w.Header().Set("Trailer", "X-Sum")
	p := &pattern{left: size, sum: newSum()}
	_, _ = io.CopyBuffer(onlyWriter{w}, p, make([]byte, 64<<10)) // the client has gone
	w.Header().Set("X-Sum", fmt.Sprint(size, " ", p.last))
}

// serveUp answers with the length and the sum of what was sent.
func serveUp(w http.ResponseWriter, r *http.Request) {
	n, sum, err := sumOf(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprint(w, n, " ", sum)
}

type onlyWriter struct{ io.Writer }

func TestEventsArriveOneByOne(t *testing.T) {
	b, hosts := streamsBench(t)
	for _, host := range hosts {
		for _, version := range []string{"1", "2"} {
			if r := b.client("sse", version, "https://"+host+"/sse"); r.Failed != nil {
				t.Errorf("%s HTTP/%s: %v", host, version, r)
			}
		}
	}
}

// TestWebSocket also holds each connection open in silence, for a second, or for as long as GATEWAYD_TEST_SILENCE says;
// `make soak` says an hour.
func TestWebSocket(t *testing.T) {
	silence := time.Second
	if s := os.Getenv("GATEWAYD_TEST_SILENCE"); s != "" {
		var err error
		if silence, err = time.ParseDuration(s); err != nil {
			t.Fatalf("GATEWAYD_TEST_SILENCE: %v", err)
		}
	}
	b, hosts := streamsBench(t)
	b.limit += silence
	var all sync.WaitGroup
	defer all.Wait()
	for _, host := range hosts {
		for _, compression := range []string{"off", "on"} {
			all.Go(func() {
				if r := b.client("socket", compression, "wss://"+host+"/ws", silence.String()); r.Failed != nil {
					t.Errorf("%s, compression %s: %v", host, compression, r)
				}
			})
		}
	}
}

func TestInterimAnswersAndTrailers(t *testing.T) {
	b, hosts := streamsBench(t)
	for _, host := range hosts {
		for _, version := range []string{"1", "2"} {
			if r := b.client("interim", version, "https://"+host+"/interim"); r.Failed != nil {
				t.Errorf("%s HTTP/%s: %v", host, version, r)
			}
		}
	}
}

func TestFullDuplex(t *testing.T) {
	b, hosts := streamsBench(t)
	for _, host := range hosts {
		if r := b.client("duplex", "2", "https://"+host+"/duplex"); r.Failed != nil {
			t.Errorf("%s: %v", host, r)
		}
	}
}

// healthHandler is a gRPC service that knows one name.
func healthHandler() http.Handler {
	server := grpc.NewServer()
	h := health.NewServer()
	h.SetServingStatus("known", grpc_health_v1.HealthCheckResponse_SERVING)
	grpc_health_v1.RegisterHealthServer(server, h)
	return server
}

func TestGRPC(t *testing.T) {
	b := newBench(t, nil)
	b.Gateway.Env = append(b.Gateway.Env, "API_TOKEN="+apiToken)
	site := b.serve(&lab.Site{Names: []string{"plain.example.org", "api.example.org"}, Handler: healthHandler()})
	b.start(streamsManifest)
	for _, host := range site.Names {
		if r := b.client("grpc", host+":443"); r.Failed != nil {
			t.Errorf("%s: %v", host, r)
		}
	}
	if got := site.Requests(); len(got) < 6 || got[len(got)-1].Header.Get("Authorization") != apiTokenIn {
		t.Errorf("the server saw %d requests, the last with the credential wanted", len(got))
	}
}

// TestBulkInFlatMemory moves a gibibyte (with -short, a sixteenth) each way, over each version of HTTP
// and undecrypted, and watches how gatewayd's memory grows.
func TestBulkInFlatMemory(t *testing.T) {
	b, _ := streamsBench(t)
	size := 1 << 30
	if testing.Short() {
		size = 64 << 20
	}
	const growth = 48 << 20
	warm := b.client("bulk", "2", "down", "https://plain.example.org/bulk", strconv.Itoa(64<<20))
	if warm.Failed != nil {
		t.Fatal(warm)
	}
	base, err := b.Gateway.ResidentBytes()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ version, direction, host string }{
		{"1", "down", "api.example.org"},
		{"1", "up", "plain.example.org"},
		{"2", "down", "plain.example.org"},
		{"2", "up", "api.example.org"},
		{"2", "down", "direct.example.org"},
	} {
		var most atomic.Int64
		stop := watchMemory(b, &most)
		r := b.client("bulk", c.version, c.direction, "https://"+c.host+"/bulk", strconv.Itoa(size))
		stop()
		t.Logf("HTTP/%s %s %s: %s, memory %d MiB at first, %d MiB at most", c.version, c.direction, c.host, strings.TrimSpace(r.Out), base>>20, most.Load()>>20)
		if r.Failed != nil {
			t.Errorf("HTTP/%s %s %s: %v", c.version, c.direction, c.host, r)
		}
		if most.Load() > base+growth {
			t.Errorf("HTTP/%s %s %s: memory grew from %d to %d MiB", c.version, c.direction, c.host, base>>20, most.Load()>>20)
		}
	}
}

// watchMemory keeps the largest resident size in most until stop is called.
func watchMemory(b *bench, most *atomic.Int64) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			if n, err := b.Gateway.ResidentBytes(); err == nil && n > most.Load() {
				most.Store(n)
			}
			select {
			case <-tick.C:
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}

// nodeSocket opens a WebSocket on a stream of HTTP/2 (RFC 8441), sends one message and prints what comes back.
const nodeSocket = `
const session = require('http2').connect('https://plain.example.org');
session.on('error', e => { console.error(e); process.exit(1); });
session.on('remoteSettings', settings => {
  if (!settings.enableConnectProtocol) { console.error('not offered'); process.exit(1); }
  const stream = session.request({':method': 'CONNECT', ':protocol': 'websocket', ':path': '/ws', 'sec-websocket-version': '13'});
  stream.on('response', h => {
    if (h[':status'] !== 200) { console.error(h); process.exit(1); }
    const text = Buffer.from('over a stream');
    stream.write(Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), text]));
  });
  stream.on('data', d => { console.log(d.subarray(2).toString()); session.destroy(); });
});`

// TestNodeOpensWebSocketsOnStreams has a client that is not of this world's making open one.
func TestNodeOpensWebSocketsOnStreams(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.Program("node"))
	b, _ := streamsBench(t)
	if r := b.run("node", "-e", nodeSocket); r.Failed != nil || strings.TrimSpace(r.Out) != "over a stream" {
		t.Error(r)
	}
}

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Two names of one server: what goes to the first is scanned, what goes to the second is decrypted too, and not scanned.
const (
	scannedName   = "scanned.bench.example"
	unscannedName = "unscanned.bench.example"
)

// Paths of the loads that tell what scanning costs.
const (
	viaUnscanned = "gatewayd-unscanned" // gatewayd, to the name that is not scanned
	viaQuiet     = "gatewayd-quiet"     // gatewayd, with nothing else under way
)

// certVariable names the PEM files of the server that takes in what is scanned, separated by colons.
const certVariable = "GATEWAYD_BENCH_CERT"

// quietStreams tells the client of the load "h1-fair" to upload nothing meanwhile.
const quietStreams = 1

// scanLoads are the loads that tell what scanning costs.
func scanLoads() []load {
	return []load{
		{name: "h1-fair", title: "Decrypted, HTTP/1.1, the slowest of a hundred small requests while a body without end goes up beside them", value: "µs",
			unit: tooFew, host: scannedName, paths: []string{viaGatewayd, viaUnscanned, viaQuiet, viaReencrypt}, latency: true, streams: quietStreams + 1},
	}
}

// decrypts tells whether gatewayd's authority vouches for a name.
func decrypts(host string) bool {
	return slices.Contains([]string{apiName, plainName, bothName, scannedName, unscannedName}, host)
}

// scanRoutes are the manifest's lines for the names that are decrypted beside apiName.
func scanRoutes() string {
	line := "    - { host: %s, auth: { scheme: bearer, secret: { env: BENCH_TOKEN }, env: BENCH_%s }%s }\n"
	return fmt.Sprintf(line, scannedName, "SCANNED", "") +
		fmt.Sprintf(line, unscannedName, "UNSCANNED", ", pipelock: { tls_passthrough: true }") +
		fmt.Sprintf(line, bothName, "BOTH", "") +
		fmt.Sprintf(line, plainName, "PLAIN", ", pipelock: { tls_passthrough: true }")
}

// makeTaker starts the server of both names.
func (w *world) makeTaker(ctx context.Context, o *options) error {
	w.taker = w.Internet.NewAddress()
	var certs []string
	for _, name := range []string{scannedName, unscannedName} {
		w.Internet.Names.Set(name, w.taker)
		text, err := leafPEM(w.Internet.CA, name)
		if err != nil {
			return err
		}
		cert, err := w.write(name+".pem", text)
		if err != nil {
			return err
		}
		certs = append(certs, cert)
	}
	l, err := w.Internet.Listen(netip.AddrPortFrom(w.taker, 443))
	if err != nil {
		return err
	}
	f, err := l.(interface{ File() (*os.File, error) }).File()
	l.Close()
	if err != nil {
		return fmt.Errorf("hand over listener: %w", err)
	}
	_, err = w.run(ctx, w.Internet.Netns, []string{roleVariable + "=taker", certVariable + "=" + strings.Join(certs, ":")}, []*os.File{f}, o.self)
	f.Close()
	return err
}

// take answers over HTTPS on the inherited socket until ctx ends: it reads what is sent, and sends an event or few bytes.
func take(ctx context.Context) error {
	f := os.NewFile(listenerFD, "listener")
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("take listener: %w", err)
	}
	s := &http.Server{
		ReadHeaderTimeout: clientPatience,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}},
		Handler:           http.HandlerFunc(takeOne),
	}
	for cert := range strings.SplitSeq(os.Getenv(certVariable), ":") {
		pair, err := tls.LoadX509KeyPair(cert, cert)
		if err != nil {
			return fmt.Errorf("read certificate: %w", err)
		}
		s.TLSConfig.Certificates = append(s.TLSConfig.Certificates, pair)
	}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func takeOne(rw http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // a client that went away
	}
	if r.URL.Path == socketPath {
		echoMessages(rw, r)
		return
	}
	if r.URL.Path != "/events" {
		fmt.Fprintln(rw, n)
		return
	}
	rw.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprintf(rw, "data: %d\n\n", n)
	_ = http.NewResponseController(rw).Flush() // the client went away
	fmt.Fprint(rw, "data: end\n\n")
}

// modelInput reads as n bytes of what agents send to a model.
type modelInput struct{ left int64 }

var modelText = strings.Repeat(`{"type":"function_call_output","call_id":"call_5f1e","output":"func (s *Set) tokenOf(key string) (apiKey, error) {\n\treturn s.lookup(\"auth_token\", key) // as the caller says\n}\n"},`, 400)

func (m *modelInput) Read(p []byte) (int, error) {
	if m.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), m.left)], modelText)
	m.left -= int64(n)
	return n, nil
}

// post sends size bytes and returns the body of the answer, unread.
func post(ctx context.Context, c *http.Client, j *job, path string, size int64) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+j.name+path, &modelInput{size})
	if err != nil {
		return nil, err
	}
	r.ContentLength = size
	r.Header.Set("Content-Type", "application/json")
	answer, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	if want := j.version(); answer.StatusCode != http.StatusOK || answer.Proto != want {
		answer.Body.Close()
		return nil, fmt.Errorf("post %s: status %s over %s, want 200 over %s", path, answer.Status, answer.Proto, want)
	}
	return answer.Body, nil
}

// postAll sends size bytes and makes sure that they came.
func postAll(ctx context.Context, c *http.Client, j *job, path string, size int64) error {
	body, err := post(ctx, c, j, path, size)
	if err != nil {
		return err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(string(text)); got != strconv.FormatInt(size, 10) {
		return fmt.Errorf("post %s: %.40q of %d bytes came", path, got, size)
	}
	return nil
}

// httpUpload uploads 100 MB, again and again until the duration is over.
func httpUpload(ctx context.Context, j *job) (Result, error) {
	c, err := httpClient(j)
	if err != nil {
		return Result{}, err
	}
	defer c.CloseIdleConnections()
	if err := postAll(ctx, c, j, "/", 1); err != nil { // the handshake is not of this load
		return Result{}, err
	}
	r := Result{Connections: 1}
	begin := time.Now()
	for r.Units == 0 || time.Since(begin) < j.duration {
		if err := postAll(ctx, c, j, "/", bulkSize); err != nil {
			return r, err
		}
		r.Units += bulkSize
	}
	r.Seconds = time.Since(begin).Seconds()
	return r, nil
}

// firstEvents sends requests and waits for the first event of each answer.
func firstEvents(ctx context.Context, j *job) (Result, error) {
	const requestSize = 10 << 10
	c, err := httpClient(j)
	if err != nil {
		return Result{}, err
	}
	defer c.CloseIdleConnections()
	var took []time.Duration
	begin := time.Now()
	for len(took) < 10 || time.Since(begin) < j.duration {
		start := time.Now()
		body, err := post(ctx, c, j, "/events", requestSize)
		if err != nil {
			return Result{}, err
		}
		line, err := bufio.NewReader(body).ReadString('\n')
		took = append(took, time.Since(start))
		if err != nil || line != fmt.Sprintf("data: %d\n", requestSize) {
			body.Close()
			return Result{}, fmt.Errorf("first event: %q, %w", line, err)
		}
		if _, err := io.Copy(io.Discard, body); err != nil {
			body.Close()
			return Result{}, err
		}
		body.Close()
	}
	took = took[1:] // has the handshake
	return Result{Units: float64(len(took)), Seconds: time.Since(begin).Seconds(), Median: median(took), Connections: 1}, nil
}

// slowestBeside makes small requests over one connection while a body without end goes up over another, and gives the
// 99th of a hundred.
func slowestBeside(ctx context.Context, j *job) (Result, error) {
	small, err := httpClient(j)
	if err != nil {
		return Result{}, err
	}
	defer small.CloseIdleConnections()
	if err := postAll(ctx, small, j, "/", 1); err != nil {
		return Result{}, err
	}
	r := Result{Connections: 1}
	upload, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	failed := make(chan error, 1)
	if j.streams > quietStreams {
		large, err := httpClient(j)
		if err != nil {
			return Result{}, err
		}
		r.Connections++
		all.Go(func() {
			defer large.CloseIdleConnections()
			if _, err := post(upload, large, j, "/", 1<<40); upload.Err() == nil {
				failed <- fmt.Errorf("the body beside ended: %w", err)
			}
		})
	}
	var took []time.Duration
	begin := time.Now()
	for len(took) < 200 || time.Since(begin) < j.duration {
		start := time.Now()
		if err := postAll(ctx, small, j, "/", smallSize); err != nil {
			return r, err
		}
		took = append(took, time.Since(start))
	}
	r.Units, r.Seconds = float64(len(took)), time.Since(begin).Seconds()
	slices.Sort(took)
	r.Median = float64(took[len(took)*99/100].Nanoseconds()) / 1e3
	select {
	case err := <-failed:
		return r, err
	default:
		return r, nil
	}
}

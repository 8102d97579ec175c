package gateway

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatewayd/gateway/routes"
	"gatewayd/lab/privileged"
)

// serversVariable names the directory that .ci/deps unpacks servers into.
const serversVariable = "GATEWAYD_TEST_SERVERS"

// server is somebody else's HTTP server, which goes on to the origin with what it has understood.
type server struct {
	name, program string
	args          []string // @ is the directory of the configuration
	// config is a template: @ is the server's directory, LISTEN its port, ORIGIN the origin's, MODULES where Apache has them.
	config string
	// strange says that it refuses methods that it does not know.
	strange bool
}

var servers = []server{
	{name: "nginx", program: "nginx", args: []string{"-p", "@", "-e", "@/errors", "-c", "@/config"}, config: `
daemon off; master_process off; pid @/pid; error_log @/errors;
events {}
http {
	access_log off; client_body_temp_path @/body; proxy_temp_path @/proxy; fastcgi_temp_path @/f; uwsgi_temp_path @/u; scgi_temp_path @/s;
	server { listen 127.0.0.1:LISTEN; location / { proxy_pass http://127.0.0.1:ORIGIN; proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header Connection ""; } }
}`},
	{name: "HAProxy", program: "haproxy", args: []string{"-db", "-f", "@/config"}, config: `
defaults
	mode http
	timeout connect 5s
	timeout client 30s
	timeout server 30s
listen all
	bind 127.0.0.1:LISTEN
	server origin 127.0.0.1:ORIGIN
`},
	{name: "Apache", program: "apache2", args: []string{"-D", "FOREGROUND", "-f", "@/config"}, config: `
ServerRoot @
PidFile @/pid
ErrorLog @/errors
Listen 127.0.0.1:LISTEN
ServerName api.test
LoadModule mpm_event_module MODULES/mod_mpm_event.so
LoadModule authz_core_module MODULES/mod_authz_core.so
LoadModule proxy_module MODULES/mod_proxy.so
LoadModule proxy_http_module MODULES/mod_proxy_http.so
User nobody
Group nogroup
LimitRequestLine 65536
LimitRequestFieldSize 65536
AllowEncodedSlashes NoDecode
DefaultRuntimeDir @
ProxyPreserveHost On
ProxyPass / http://127.0.0.1:ORIGIN/ nocanon
`, strange: true},
	{name: "Node", program: "node", args: []string{"--max-http-header-size=131072", "@/config"}, config: `
const http = require('http');
http.createServer((req, res) => {
	const to = http.request({port: ORIGIN, host: '127.0.0.1', method: req.method, path: req.url, headers: req.headers, agent: false}, r => {
		res.writeHead(r.statusCode, r.headers);
		r.pipe(res);
	});
	to.on('error', () => res.destroy());
	req.on('aborted', () => to.destroy());
	req.pipe(to);
}).listen(LISTEN, '127.0.0.1');
`, strange: true},
}

// start runs the server in front of the origin's port and returns its own. It ends with the test.
func (s server) start(t *testing.T, origin uint16) uint16 {
	t.Helper()
	root, err := filepath.Abs(cmp.Or(os.Getenv(serversVariable), "../.cache/servers/root"))
	if err != nil {
		t.Fatal(err)
	}
	program, modules := filepath.Join(root, "usr/sbin", s.program), filepath.Join(root, "usr/lib/apache2/modules")
	if installed, err := exec.LookPath(s.program); err == nil {
		program, modules = installed, "/usr/lib/apache2/modules"
	}
	privileged.Require(t, privileged.File(program))
	dir := t.TempDir()
	port := closedPort(t)
	config := strings.NewReplacer("@", dir, "LISTEN", fmt.Sprint(port), "ORIGIN", fmt.Sprint(origin), "MODULES", modules).Replace(s.config)
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, a := range s.args {
		args = append(args, strings.ReplaceAll(a, "@", dir))
	}
	var out lockedBuffer
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(root, "usr/lib/x86_64-linux-gnu"))
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its children with it
		_ = cmd.Wait()
	})
	for end := time.Now().Add(3 * testWait); ; {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
			return port
		}
		if time.Now().After(end) {
			errs, _ := os.ReadFile(filepath.Join(dir, "errors"))
			t.Fatalf("%s does not listen: %v: %s%s", s.name, err, out.String(), errs)
		}
	}
}

// arrivals is an origin that notes each request that reached it whole, and answers with the note.
type arrivals struct {
	mu   sync.Mutex
	seen []string
}

func (a *arrivals) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if len(body) > 40 {
		body = fmt.Appendf(nil, "%d bytes, %x in all", len(body), sum(body))
	}
	line := fmt.Sprintf("%s %s %q", r.Method, r.RequestURI, body)
	if v := r.Header.Values("X-Case"); len(v) > 0 {
		line += " " + strings.Join(v, ", ")
	}
	a.mu.Lock()
	a.seen = append(a.seen, line)
	a.mu.Unlock()
	_, _ = io.WriteString(w, line)
}

// take returns what was noted since the last call.
func (a *arrivals) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() { a.seen = nil }()
	return a.seen
}

// sum is enough to tell two bodies apart.
func sum(b []byte) (n uint32) {
	for _, c := range b {
		n = n*31 + uint32(c)
	}
	return n
}

// TestServersBehind puts other people's servers behind the gateway, and says what makes servers that stand behind one another
// disagree. Each request arrives as it was sent, or the gateway refuses it; and there is never one that was not sent.
func TestServersBehind(t *testing.T) {
	origin := &arrivals{}
	s := httptest.NewServer(origin)
	defer s.Close()
	port := addrPortOf(s.Listener.Addr()).Port()
	for _, behind := range append([]server{{name: "nothing"}}, servers...) {
		t.Run(behind.name, func(t *testing.T) {
			to := port
			if behind.program != "" {
				to = behind.start(t, port)
			}
			w := newWorld(t, nil)
			w.names.set("api.test", "127.0.0.1")
			b := testBottle(t, routes.Route{Host: "api.test", Port: to, Protocol: routes.HTTP})
			w.apply(t, b)
			arrived, refused, others := 0, 0, 0
			for _, c := range exchanges() {
				want := c.want
				if !c.broken {
					want = append(slices.Clone(want), `GET /end ""`)
				}
				statuses, told := c.say(t, w, b, to)
				got := origin.take()
				if c.strange && behind.strange && slices.Equal(got, want[len(c.want):]) {
					others++
					continue
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s: the origin got %q, want %q; the guest %v", c.name, got, want, statuses)
				}
				if !slices.Equal(told, want) {
					t.Errorf("%s: the guest was told of %q, want %q", c.name, told, want)
				}
				if len(c.want) == 0 && !c.left() && !slices.ContainsFunc(statuses, func(n int) bool { return n/100 == 4 || n == http.StatusNotImplemented }) {
					t.Errorf("%s: the guest got %v, want a refusal", c.name, statuses)
				}
				arrived += len(c.want)
				if c.broken {
					refused++
				}
			}
			w.apply(t) // ends the connections to the server
			t.Logf("of %d cases, %d requests arrived as sent, %d ended with a refusal or a cut, %d were refused by %s", len(exchanges()), arrived, refused, others, behind.name)
		})
	}
}

// said is what a guest says on one connection.
type said struct {
	name, raw string
	want      []string // the requests that arrive
	broken    bool     // the connection ends there, so that what is behind is not looked at
	strange   bool     // servers may refuse it
}

// left tells whether the guest goes away in the middle of a request, so that there is nobody to answer.
func (c said) left() bool { return strings.HasPrefix(c.name, "truncated") }

// say says it on a connection of the bottle's, and then asks for /end. It returns the statuses that came back, and the bodies of
// those with 200.
func (c said) say(t *testing.T, w *world, b Bottle, port uint16) (statuses []int, bodies []string) {
	t.Helper()
	conn := w.sockets.call(t, b.Link, anywhere(port))
	defer conn.Close()
	host := fmt.Sprintf("Host: api.test:%d\r\n", port)
	raw := strings.ReplaceAll(c.raw, "HOST\r\n", host)
	if !c.left() {
		raw += "GET /end HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n"
	}
	go func() { // a refusal may come before all is said
		_, _ = io.WriteString(conn, raw)
		if c.broken {
			_ = conn.CloseWrite()
		}
	}()
	in := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the connection did not end", c.name)
			}
			return statuses, bodies
		}
		if resp.StatusCode < 200 {
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		statuses = append(statuses, resp.StatusCode)
		if resp.StatusCode == http.StatusOK {
			bodies = append(bodies, string(body))
		}
	}
}

// exchanges is the corpus.
func exchanges() []said {
	const hidden = "GET /hidden HTTP/1.1\r\nHOST\r\n\r\n"
	const post, chunked = "POST /p HTTP/1.1\r\nHOST\r\n", "POST /p HTTP/1.1\r\nHOST\r\nTransfer-Encoding: chunked\r\n\r\n"
	long := bytes.Repeat([]byte("0123456789abcdef"), 16<<10)
	noted := fmt.Sprintf("%q", fmt.Sprintf("%d bytes, %x in all", len(long), sum(long)))
	all := []said{
		{name: "plain", raw: "GET /a?b=c HTTP/1.1\r\nHOST\r\nX-Case: one\r\n\r\n", want: []string{`GET /a?b=c "" one`}},
		{name: "pipelined", raw: "GET /1 HTTP/1.1\r\nHOST\r\n\r\n" + post + "Content-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHOST\r\n\r\n", want: []string{`GET /1 ""`, `POST /p "abc"`, `GET /3 ""`}},
		{name: "body that looks like a request", raw: post + "Content-Length: 38\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n", want: []string{`POST /p "GET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n"`}},
		{name: "chunked", raw: chunked + "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", want: []string{`POST /p "abcde"`}},
		{name: "chunks that look like a request", raw: chunked + "26\r\nGET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n\r\n0\r\n\r\n", want: []string{`POST /p "GET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n"`}},
		{name: "zeros before a size", raw: chunked + "0003\r\nabc\r\n000\r\n\r\n", want: []string{`POST /p "abc"`}},
		{name: "trailers", raw: "POST /p HTTP/1.1\r\nHOST\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: v\r\n\r\n", want: []string{`POST /p "abc"`}},
		{name: "Expect", raw: post + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", want: []string{`POST /p "abc"`}},
		{name: "GET with a body", raw: "GET /g HTTP/1.1\r\nHOST\r\nContent-Length: 3\r\n\r\nabc", want: []string{`GET /g "abc"`}},
		{name: "DELETE with chunks", raw: "DELETE /d HTTP/1.1\r\nHOST\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", want: []string{`DELETE /d "abc"`}},
		{name: "empty body", raw: post + "Content-Length: 0\r\n\r\n", want: []string{`POST /p ""`}},
		{name: "long body", raw: post + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(long), long), want: []string{"POST /p " + noted}},
		{name: "long chunks", raw: chunked + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(long), long), want: []string{"POST /p " + noted}},
		{name: "long head", raw: "GET /l HTTP/1.1\r\nHOST\r\nX-Long: " + strings.Repeat("x", 7000) + "\r\n\r\n", want: []string{`GET /l ""`}},
		{name: "the same field twice", raw: "GET /t HTTP/1.1\r\nHOST\r\nX-Case: a\r\nX-Case: b\r\n\r\n", want: []string{`GET /t "" a, b`}},
		{name: "escapes in a query", raw: "GET /q?x=%0d%0aX-Case:%20y&a=%2F.. HTTP/1.1\r\nHOST\r\n\r\n", want: []string{`GET /q?x=%0d%0aX-Case:%20y&a=%2F.. ""`}},
		{name: "hop-by-hop fields", raw: "GET /h HTTP/1.1\r\nHOST\r\nConnection: X-Case\r\nX-Case: dropped\r\n\r\n", want: []string{`GET /h ""`}},
		{name: "known method", raw: "PROPFIND /m HTTP/1.1\r\nHOST\r\n\r\n", want: []string{`PROPFIND /m ""`}},
		{name: "odd method", raw: "BREW /m HTTP/1.1\r\nHOST\r\n\r\n", want: []string{`BREW /m ""`}, strange: true},
		{name: "QUERY", raw: "QUERY /m HTTP/1.1\r\nHOST\r\nContent-Length: 3\r\n\r\nabc", want: []string{`QUERY /m "abc"`}, strange: true},
		{name: "dot segments", raw: "GET /a/../b HTTP/1.1\r\nHOST\r\n\r\n"},
		{name: "encoded slash", raw: "GET /a%2f..%2fb HTTP/1.1\r\nHOST\r\n\r\n"},
		{name: "TRACE", raw: "TRACE /m HTTP/1.1\r\nHOST\r\n\r\n"},
		{name: "fragment", raw: "GET /m#x HTTP/1.1\r\nHOST\r\n\r\n" + hidden, broken: true},
	}
	for name, head := range map[string]string{
		"CL.TE": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "TE.CL": "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n",
		"TE.TE": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", "TE of two": "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"TE in quotes": "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "TE with a tab": "Content-Length: 5\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
		"TE with a space before its colon": "Content-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "TE folded": "Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
		"TE after a bare LF": "Content-Length: 5\r\nX: x\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "TE after a bare CR": "Content-Length: 5\r\nX: x\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two lengths": "Content-Length: 0\r\nContent-Length: 31\r\n\r\n", "list of lengths": "Content-Length: 0, 31\r\n\r\n", "signed length": "Content-Length: +0\r\n\r\n",
		"empty length": "Content-Length:\r\n\r\n", "length of two numbers": "Content-Length: 0 31\r\n\r\n", "length in hexadecimal": "Content-Length: 0x0\r\n\r\n",
		"length with NUL": "Content-Length: 0\x00\r\n\r\n", "huge length": "Content-Length: 18446744073709551616\r\n\r\n", "second Host": "Host: other.test\r\n\r\n",
		"length with an underscore beside one": "Content_Length: 31\r\nContent-Length: 0\x00\r\n\r\n", "TE in HTTP/1.0's way": "Transfer-Encoding: identity\r\n\r\n",
	} {
		all = append(all, said{name: name, raw: post + head + hidden, broken: true})
	}
	for name, body := range map[string]string{
		"chunk size 0x": "0x0\r\n\r\n", "chunk size with a sign": "+0\r\n\r\n", "chunk size too large": "10000000000000000\r\n\r\n", "chunk ended by LF": "1\r\na\n0\r\n\r\n",
		"size ended by LF": "1\na\r\n0\r\n\r\n", "extension with LF": "2;\nxx\r\n1f\r\n0\r\n\r\n", "extension with CR": "2;a\rb\r\nxx\r\n0\r\n\r\n", "longer chunk than its size": "1\r\nab\r\n0\r\n\r\n",
		"trailer that is a length": "0\r\nContent-Length: 31\r\n\r\n", "trailer ended by LF": "0\r\nX: y\n\r\n", "space before a size": "0\r\n \r\n\r\n", "no size": "\r\n0\r\n\r\n",
		"truncated chunk": "5\r\nab", "truncated end": "2\r\nab\r\n0\r\n",
	} {
		c := said{name: name, raw: chunked + body, broken: true}
		if !c.left() {
			c.raw += hidden
		}
		all = append(all, c)
	}
	return all
}

package http1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// converse serves what a guest says in one go and returns what the handler saw, one line for each request, what the guest
// read, and what Serve returned. The handler reads each body to its end.
func converse(in io.Reader) (seen []string, out string, err error) {
	conn := &scriptConn{in: in}
	s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		if err != nil {
			seen = append(seen, fmt.Sprintf("%s %s %s broken", r.Method, r.Host, r.RequestURI))
			panic(http.ErrAbortHandler)
		}
		seen = append(seen, fmt.Sprintf("%s %s %s %q", r.Method, r.Host, r.RequestURI, content))
		io.WriteString(w, "ok")
	})}
	err = s.Serve(context.Background(), context.Background(), conn)
	return seen, conn.out.String(), err
}

// hidden is the request that an attack hides in another.
const hidden = "GET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n"

// desyncs is what a guest might say, so that two servers behind one another disagree on where a request ends; what may be seen
// of it; and why the rest is refused.
var desyncs = []struct {
	name, raw string
	want      []string
	reason    Reason
}{
	{"pipelined", "GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n" + hidden, []string{`GET a.test /1 ""`, `GET a.test /hidden ""`}, ""},
	{"body that looks like a request", fmt.Sprintf("POST /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n", len(hidden)) + hidden, []string{fmt.Sprintf("POST a.test /1 %q", hidden)}, ""},
	{"CL.TE", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, nil, ReasonBothLengths},
	{"TE.CL", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + hidden, nil, ReasonBothLengths},
	{"TE.TE", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n" + hidden, nil, ReasonEncoding},
	{"TE with a space before its colon", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + hidden, nil, ReasonFieldName},
	{"TE folded", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + hidden, nil, ReasonFold},
	{"TE after a bare LF", "POST / HTTP/1.1\r\nHost: a.test\r\nX: x\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + hidden, nil, ReasonBareLF},
	{"TE after a bare CR", "POST / HTTP/1.1\r\nHost: a.test\r\nX: x\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + hidden, nil, ReasonBareCR},
	{"CL.0", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length:\r\n\r\n" + hidden, nil, ReasonLength},
	{"two CL", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\nContent-Length: 38\r\n\r\n" + hidden, nil, ReasonLength},
	{"chunk terminated by LF", chunkedHead + "1\r\na\n0\r\n\r\n" + hidden, []string{"POST a.test / broken"}, ""},
	{"chunk size 0x", chunkedHead + "0x0\r\n\r\n" + hidden, []string{"POST a.test / broken"}, ""},
	{"chunk extension hides an end", chunkedHead + "2;\nxx\r\n4c\r\n0\r\n\r\n" + hidden, []string{"POST a.test / broken"}, ""},
	{"trailer hides a length", chunkedHead + "0\r\nContent-Length: 38\r\n\r\n" + hidden, []string{"POST a.test / broken"}, ""},
	{"TE on 1.0", "POST / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, nil, ReasonEncoding},
	{"1.0 ends the connection", "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n" + hidden, []string{`GET a.test / ""`}, ""},
	{"close ends the connection", "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n" + hidden, []string{`GET a.test / ""`}, ""},
	{"GET with a body", "GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc" + hidden, []string{`GET a.test / "abc"`, `GET a.test /hidden ""`}, ""},
	{"second request with another host", "GET / HTTP/1.1\r\nHost: a.test\r\n\r\nGET / HTTP/1.1\r\nHost: b.test\r\n\r\n", []string{`GET a.test / ""`, `GET b.test / ""`}, ""},
	{"truncated body", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nabc", []string{"POST a.test / broken"}, ""},
	{"truncated chunks", chunkedHead + "5\r\nab", []string{"POST a.test / broken"}, ""},
	{"truncated last chunk", chunkedHead + "2\r\nab\r\n0\r\n", []string{"POST a.test / broken"}, ""},
	{"upgrade to h2c is a plain request", "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []string{`GET a.test / ""`}, ReasonPreface},
}

// TestDesync makes sure that the second request, which such an attack hides, is never seen but as what it is.
func TestDesync(t *testing.T) {
	for _, tt := range desyncs {
		for _, split := range []string{"whole", "by the byte"} {
			t.Run(tt.name+" "+split, func(t *testing.T) {
				var in io.Reader = strings.NewReader(tt.raw)
				if split != "whole" {
					in = iotest.OneByteReader(in)
				}
				seen, out, err := converse(in)
				if !slices.Equal(seen, tt.want) {
					t.Errorf("the handler saw %q, want %q", seen, tt.want)
				}
				var protocol *ProtocolError
				reason := Reason("")
				if errors.As(err, &protocol) {
					reason = protocol.Reason
				}
				if reason != tt.reason {
					t.Errorf("Serve returned %v, want reason %q", err, tt.reason)
				}
				if tt.reason != "" && !strings.HasSuffix(out, protocol.Error()+"\n") {
					t.Errorf("the guest was not told: %q", out)
				}
			})
		}
	}
}

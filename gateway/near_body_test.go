package gateway

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// pause is long enough for the gateway to have read what came before.
const pause = 30 * time.Millisecond

// TestSmallBodiesInRecords sends small requests as clients do: the head and the body in one record, in records that come together,
// and with pauses before and within the body. The origin sees the same, and what must not leave never reaches it as a whole.
func TestSmallBodiesInRecords(t *testing.T) {
	var whole atomic.Int64
	s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		whole.Add(1)
		fmt.Fprintf(w, "%d", len(b))
	}, authRoute(t, "home.test", 443))
	text := strings.Repeat("words and ", 500)
	for _, tt := range []struct {
		name string
		cuts []int // after how many bytes of the body a record ends
		wait int   // the record that there is a pause before; 0 for none
	}{
		{"one record", nil, 0},
		{"the body in its own", []int{0}, 0},
		{"the body in many", []int{0, 1, 2, 1000, 4000}, 0},
		{"a part with the head", []int{100, 2000}, 0},
		{"the body later", []int{0}, 1},
		{"its end later", []int{0, 4000}, 2},
		{"its end later, a part with the head", []int{4000}, 1},
	} {
		for _, leak := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, leak %v", tt.name, leak), func(t *testing.T) {
				before, body := whole.Load(), text
				if leak {
					body += canaryDummy
				}
				conn, in := s.raw(t, "api.test", s.port)
				for range 2 { // the second over the same connections, if they still are
					say(t, conn, recordsOf("POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: %d\r\n\r\n", body, tt.cuts), tt.wait)
					resp, got := readResponse(t, in)
					if leak {
						s.explained(t, resp, got, 403, ReasonLeak)
						break
					}
					if resp.StatusCode != 200 || got != fmt.Sprint(len(body)) {
						t.Fatalf("got %d %q", resp.StatusCode, got)
					}
				}
				if saw := whole.Load() - before; leak && saw > 0 || !leak && saw != 2 {
					t.Errorf("the origin saw %d whole requests", saw)
				}
			})
		}
	}
}

// recordsOf cuts a request where its body has as many bytes as cuts say.
func recordsOf(head, body string, cuts []int) (records []string) {
	all, from := fmt.Sprintf(head, len(body)), 0
	start := len(all)
	all += body
	for _, c := range cuts {
		records, from = append(records, all[from:start+c]), start+c
	}
	return append(records, all[from:])
}

// say writes each of records as one of TLS's, with a pause before one of them if wait is not 0. Those without a pause between them
// leave together.
func say(t *testing.T, conn net.Conn, records []string, wait int) {
	t.Helper()
	for i, r := range records {
		if wait > 0 && i == wait {
			time.Sleep(pause)
		}
		if _, err := io.WriteString(conn, r); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEarlyAnswerToASmallBody has an origin answer before all of a small body has come: the guest gets the answer, and need not
// send the rest.
func TestEarlyAnswerToASmallBody(t *testing.T) {
	s := newStage(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		http.NewResponseController(w).EnableFullDuplex() // net/http would read the body first
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	})
	body := strings.Repeat("b", 8000)
	for _, cuts := range [][]int{{0}, {10}, {0, 4000}, {0, 7999}} {
		conn, in := s.raw(t, "api.test", s.port)
		records := recordsOf("POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: %d\r\n\r\n", body, cuts)
		say(t, conn, records[:len(records)-1], 0)
		resp, _ := readResponse(t, in)
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%v: got %d", cuts, resp.StatusCode)
		}
		conn.Close()
	}
}

// TestHalfABodyIsNotARequest has a guest leave within a small body: the origin sees that it broke off.
func TestHalfABodyIsNotARequest(t *testing.T) {
	whole := make(chan bool, 1)
	s := newStage(t, nil, func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		whole <- err == nil
	})
	for _, end := range []func(net.Conn){
		func(conn net.Conn) { conn.Close() },
		func(conn net.Conn) { conn.(*tls.Conn).NetConn().Close() },
	} {
		conn, _ := s.raw(t, "api.test", s.port)
		say(t, conn, recordsOf("POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: %d\r\n\r\n", strings.Repeat("b", 8000), []int{0, 4000})[:2], 0)
		time.Sleep(pause) // so that the head is sent
		end(conn)
		select {
		case w := <-whole:
			if w {
				t.Error("half a body looks whole")
			}
		case <-time.After(testWait):
			t.Fatal("the origin still waits")
		}
	}
}

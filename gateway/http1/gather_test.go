package http1

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// gathering is a scriptConn as one over TLS is, whose transport takes the records of several writes together. left are the bytes
// that left at once.
type gathering struct {
	scriptConn
	inside bool
	left   []int
}

func (c *gathering) NetConn() net.Conn { return c }

func (c *gathering) Write(p []byte) (int, error) {
	if !c.inside {
		c.left = append(c.left, 0)
	}
	c.left[len(c.left)-1] += len(p)
	return c.scriptConn.Write(p)
}

func (c *gathering) Gather(write func() error) error {
	c.inside = true
	defer func() { c.inside = false }()
	c.left = append(c.left, 0)
	return write()
}

// TestResponseLeavesTogether writes bodies in pieces of all sizes around that of a record, each flushed but for the last: the guest gets
// what was written, and each piece leaves at once with its frame, the head with the first.
func TestResponseLeavesTogether(t *testing.T) {
	pieces := [][]int{
		{64 << 10}, {writeBuffer}, {writeBuffer - 1}, {writeBuffer + 1}, {2 * writeBuffer}, {writeBuffer - 200}, {3, 64 << 10, 5},
		{40_000, 1, 40_000, writeBuffer, 100}, {1, writeBuffer - 1, 1, writeBuffer - 9, writeBuffer - 8, writeBuffer - 7},
	}
	for _, sizes := range pieces {
		for _, declared := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v, declared %v", sizes, declared), func(t *testing.T) {
				var want bytes.Buffer
				for i, n := range sizes {
					want.WriteString(strings.Repeat(string(rune('a'+i)), n))
				}
				conn := &gathering{scriptConn: scriptConn{in: strings.NewReader("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")}}
				s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if declared {
						w.Header().Set("Content-Length", strconv.Itoa(want.Len()))
					}
					writePieces(t, w, want.Bytes(), sizes)
				})}
				if err := s.Serve(context.Background(), context.Background(), conn); err != nil {
					t.Fatal(err)
				}
				resp, err := http.ReadResponse(bufio.NewReader(&conn.out), nil)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, want.Bytes()) {
					t.Errorf("got %d bytes, %v; want %d", len(got), err, want.Len())
				}
				most := len(sizes)
				if !declared {
					most++ // the last chunk, which leaves with the last piece if that is small
				}
				if len(conn.left) > most || slices.Contains(conn.left, 0) {
					t.Errorf("left in %v, want %d at most", conn.left, most)
				}
			})
		}
	}
}

// writePieces writes body in pieces of these sizes and flushes each but the last.
func writePieces(t *testing.T, w http.ResponseWriter, body []byte, sizes []int) {
	for i, n := range sizes {
		if _, err := w.Write(body[:n]); err != nil {
			t.Error(err)
		}
		if body = body[n:]; i < len(sizes)-1 {
			w.(http.Flusher).Flush()
		}
	}
}

// recordConn gives what a server has said in pieces, as TLS gives records, and tells how many have come.
type recordConn struct {
	scriptConn
	records [][]byte
	come    int
}

func (c *recordConn) Read(p []byte) (int, error) {
	if len(c.records) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.records[0])
	if c.records[0] = c.records[0][n:]; len(c.records[0]) == 0 {
		c.records, c.come = c.records[1:], max(c.come-1, 0)
	}
	return n, nil
}

func (c *recordConn) Whole() bool { return c.come > 0 }

func (c *recordConn) Buffered() int {
	n := 0
	for _, r := range c.records[:c.come] {
		n += len(r)
	}
	return n
}

// TestBodyIsReadTogether: what has come of a body in whole records is read at once, to its end, however short its last record is, and
// what has not come is not waited for.
func TestBodyIsReadTogether(t *testing.T) {
	const length = 4 * recordBytes
	body := strings.Repeat("b", length)
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", length)
	for come := 1; come <= 5; come++ {
		conn := &recordConn{come: come}
		for record := range slices.Chunk([]byte(head+body), recordBytes) { // the last has as many bytes as the head
			conn.records = append(conn.records, record)
		}
		c := NewClient(ClientLimits{}).NewConn(conn, conn, func(bool) {})
		resp, err := c.RoundTrip(t.Context(), ask("GET"))
		if err != nil {
			t.Fatal(err)
		}
		want := min(come*recordBytes-len(head), length)
		if got := resp.Body.(interface{ Come() int }).Come(); got != want {
			t.Errorf("of %d records %d bytes have come, want %d", come, got, want)
		}
		first := make([]byte, length)
		n, err := resp.Body.Read(first)
		if ended := err == io.EOF; n != want || ended != (want == length) { //nolint:errorlint // Read returns it bare
			t.Errorf("%d records had come: the first read gave %d bytes, %v; want %d", come, n, err, want)
		}
		rest, err := io.ReadAll(resp.Body)
		if err != nil || string(first[:n])+string(rest) != body {
			t.Errorf("%d records had come: got %d bytes in all, %v", come, n+len(rest), err)
		}
	}
}

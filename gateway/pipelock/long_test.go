package pipelock

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// repeated reads as head, then text again and again for n bytes, then tail.
func repeated(head, text string, n int64, tail string) io.Reader {
	return io.MultiReader(strings.NewReader(head), io.LimitReader(&again{text: strings.Repeat(text, 1+(32<<10)/len(text))}, n), strings.NewReader(tail))
}

type again struct {
	text string
	at   int
}

func (a *again) Read(p []byte) (int, error) {
	n := copy(p, a.text[a.at:])
	a.at = (a.at + n) % len(a.text)
	return n, nil
}

// TestLongBodies reads bodies that are one text without an end, of the kinds that could make a scanner keep it: nothing is.
func TestLongBodies(t *testing.T) {
	size := int64(48 << 20)
	if testing.Short() {
		size = 8 << 20
	}
	for name, c := range map[string]struct {
		h                http.Header
		head, text, tail string
		size             int64
	}{
		"one JSON string":       {asJSON, `{"a":"`, "a long text, \\n and \\\"more\\\" of it ", `"}`, size},
		"one word":              {asJSON, `{"a":"`, "abcdefghij", `"}`, size},
		"backslashes":           {asJSON, `{"a":"`, `\`, `"}`, size / 8},
		"a key that has no end": {asJSON, `{"api_key":"`, "q7Xv2LmN9bT4sKd8WzR1yHc5JfGp3A", `"}`, size / 8},
		"a gRPC message": {http.Header{"Content-Type": {"application/grpc"}},
			"\x00" + string([]byte{byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)}), "text of a field ", "", size},
		"a part in base64": {multipartHeader, "--" + boundary + "\r\nContent-Transfer-Encoding: base64\r\n\r\n",
			strings.Repeat("bG9uZyB0ZXh0", 6) + "\r\n", "--" + boundary + "--\r\n", size / 4},
		"a part's line":  {multipartHeader, "--" + boundary + "\r\n\r\n", "no end ", "\r\n--" + boundary + "--\r\n", size},
		"a form's field": {http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, "a=", "%41b+c", "&d=e", size / 4},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := formScanner(t).RequestBody(other, c.h, repeated(c.head, c.text, c.size, c.tail))
			if err != nil {
				t.Fatal(err)
			}
			checkHeap(t, r, 4<<20)
		})
	}
}

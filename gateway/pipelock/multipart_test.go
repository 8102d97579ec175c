package pipelock

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

const boundary = "x-y_z"

var multipartHeader = http.Header{"Content-Type": {`multipart/form-data; boundary="` + boundary + `"`}}

// multipartBody returns a body of parts, each a header without its last line's end and a content.
func multipartBody(parts ...[2]string) string {
	var b strings.Builder
	b.WriteString("preamble\r\n")
	for _, p := range parts {
		fmt.Fprintf(&b, "--%s\r\nContent-Disposition: form-data; name=\"f\"\r\n%s\r\n%s\r\n", boundary, p[0], p[1])
	}
	return b.String() + "--" + boundary + "--\r\n"
}

// lines cuts text into lines of 76 characters.
func lines(text string) string {
	var b strings.Builder
	for len(text) > 76 {
		b.WriteString(text[:76] + "\r\n")
		text = text[76:]
	}
	return b.String() + text
}

// encodedParts are headers and contents of a part that says text.
func encodedParts(t testing.TB, text string) map[string][2]string {
	t.Helper()
	var quoted bytes.Buffer
	q := quotedprintable.NewWriter(&quoted)
	if _, err := io.WriteString(q, text); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	zipped := string(encode(t, "gzip", text))
	b64 := base64.StdEncoding.EncodeToString
	return map[string][2]string{
		"as it is":         {"", text},
		"base64":           {"Content-Transfer-Encoding: base64\r\n", lines(b64([]byte(text)))},
		"base64, folded":   {"X: y\r\nContent-Transfer-Encoding:\r\n\tBASE64 (comment)\r\n", b64([]byte(text))},
		"quoted-printable": {"content-transfer-encoding: Quoted-Printable\r\n", quoted.String()},
		"gzip":             {"Content-Encoding: gzip\r\n", zipped},
		"gzip in base64":   {"Content-Encoding: gzip\r\nContent-Transfer-Encoding: base64\r\n", lines(b64([]byte(zipped)))},
	}
}

// readRequest reads a request's body through the scanner, in several kinds of pieces, which must not matter.
func readRequest(t testing.TB, s *Scanner, h http.Header, body []byte) ([]byte, error) {
	t.Helper()
	var got []byte
	var err error
	for i, wrap := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader} {
		r, openErr := s.RequestBody(other, h, wrap(bytes.NewReader(body)))
		if openErr != nil {
			return nil, openErr
		}
		out, outErr := io.ReadAll(r)
		if !bytes.HasPrefix(body, out) || outErr == nil && len(out) != len(body) {
			t.Fatalf("reader %d: %d bytes became %d others: %v", i, len(body), len(out), outErr)
		}
		if i > 0 && (err == nil) != (outErr == nil) {
			t.Fatalf("reader %d: %v, but %v", i, outErr, err)
		}
		got, err = out, outErr
	}
	return got, err
}

func TestMultipart(t *testing.T) {
	s := formScanner(t)
	token := formTokens()["gitlab-pat"]
	for name, part := range encodedParts(t, "some text\r\n"+strings.Repeat("more ", 9000)+"\r\nthe token is "+token+" as you see\r\n") {
		for _, before := range []string{"", strings.Repeat("long before that\r\n", 40_000)} {
			body := multipartBody([2]string{"", before + "a"}, part, [2]string{"", "z"})
			got, err := readRequest(t, s, multipartHeader, []byte(body))
			var leak *LeakError
			if !errors.As(err, &leak) || leak.Finding.Rule != "gitlab-pat" || leak.Finding.Place != "body" {
				t.Errorf("%s after %d bytes: %v", name, len(before), err)
			}
			if bytes.Contains(got, []byte(token)) {
				t.Errorf("%s: the token went", name)
			}
		}
	}
	for name, part := range encodedParts(t, "nothing of "+strings.Repeat("interest ", 20_000)) {
		body := multipartBody(part, part, part)
		for _, end := range []string{body, strings.ReplaceAll(body, "\r\n", "\n"), body + "behind it", strings.TrimSuffix(body, "--\r\n"), body[:len(body)-20]} {
			if strings.Contains(name, "gzip") && len(end) < len(body)-10 { // cut, or lines of something else
				continue
			}
			if _, err := readRequest(t, s, multipartHeader, []byte(end)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	var leak *LeakError
	for _, c := range []string{"X-Note: " + token + "\r\n", "Content-Type: text/plain; name=" + dummy + "\r\n"} {
		if _, err := readRequest(t, s, multipartHeader, []byte(multipartBody([2]string{c, "x"}))); !errors.As(err, &leak) {
			t.Errorf("in a part's header: %v", err)
		}
	}
	// In a body with a content coding, too.
	h := multipartHeader.Clone()
	h.Set("Content-Encoding", "gzip")
	body := encode(t, "gzip", multipartBody(encodedParts(t, "x "+token)["base64"]))
	if _, err := readRequest(t, s, h, body); !errors.As(err, &leak) {
		t.Errorf("encoded twice: %v", err)
	}
}

// nested returns a part that has a part and so on, so many times, the innermost of which has the header fields.
func nested(depth int, fields string) [2]string {
	part := [2]string{fields + "\r\n", "x"}
	for i := range depth {
		part = inParts(fmt.Sprintf("inner-%d", i), part)
	}
	return part
}

// inParts returns a part that has the part, and another before and behind it.
func inParts(boundary string, part [2]string) [2]string {
	text := fmt.Sprintf("--%s\r\nX: y\r\n\r\nfirst\r\n--%s\r\n%s\r\n%s\r\n--%s\r\n\r\nlast\r\n--%s--\r\n", boundary, boundary, part[0], part[1], boundary, boundary)
	return [2]string{"Content-Type: multipart/mixed; boundary=" + boundary + "\r\n", text}
}

// TestNestedMultipart puts an encoded part into parts of several kinds.
func TestNestedMultipart(t *testing.T) {
	s := formScanner(t)
	token := formTokens()["gitlab-pat"]
	for _, secret := range []string{token, "nothing of interest"} {
		for name, part := range encodedParts(t, "some text\r\nthe token is "+secret+" as you see\r\n") {
			if name == "as it is" {
				continue
			}
			message := "Subject: x\r\n" + part[0] + "\r\n" + part[1]
			inner := inParts("inner", part)
			for how, outer := range map[string][2]string{
				"once":              inner,
				"twice":             inParts("outer", inner),
				"eight times":       inParts("7", inParts("6", inParts("5", inParts("4", inParts("3", inParts("2", inParts("1", inner))))))),
				"without an end":    {inner[0], strings.TrimSuffix(inner[1], "\r\n--inner\r\n\r\nlast\r\n--inner--\r\n")},
				"mail":              {"Content-Type: message/rfc822\r\n", message},
				"mail of parts":     {"Content-Type: message/rfc822\r\n", "From: a\r\n" + inner[0] + "\r\n" + inner[1]},
				"request":           {"Content-Type: application/http\r\n", "POST /a HTTP/1.1\r\n" + part[0] + "\r\n" + part[1]},
				"behind a request":  inParts("batch", [2]string{"Content-Type: application/http\r\n", "GET /a HTTP/1.1\r\n--batch\r\n" + part[0] + "\r\n" + part[1]}),
				"behind inner's":    {inner[0], "--inner\r\n\r\n\r\n--inner--\r\n--" + boundary + "\r\n" + part[0] + "\r\n" + part[1]},
				"a comment first":   {"Content-Transfer-Encoding: (no) base64\r\n", base64.StdEncoding.EncodeToString([]byte("the token is " + secret))},
				"quoted boundary":   inParts("inner", inParts("a(b)", part)),
				"a longer boundary": inParts(boundary+"-and-more", part),
			} {
				outer[0] = strings.Replace(outer[0], "boundary=a(b)", `boundary="a(b)"`, 1)
				outer[1] = strings.Replace(outer[1], "boundary=a(b)", `boundary="a(b)"`, 1)
				_, err := readRequest(t, s, multipartHeader, []byte(multipartBody(outer, [2]string{"", "z"})))
				var leak *LeakError
				if errors.As(err, &leak) != (secret == token) || err != nil && leak == nil {
					t.Errorf("%s, %s, %s: %v", name, how, secret, err)
				}
			}
			for _, media := range []string{"message/rfc822", "application/http"} {
				_, err := readRequest(t, s, http.Header{"Content-Type": {media}}, []byte(message))
				var leak *LeakError
				if errors.As(err, &leak) != (secret == token) || err != nil && leak == nil {
					t.Errorf("%s, as %s, %s: %v", name, media, secret, err)
				}
			}
		}
	}
}

func TestMultipartRefusals(t *testing.T) {
	s := formScanner(t)
	for name, c := range map[string]struct {
		part [2]string
		kind EncodingKind
	}{
		"unknown coding":   {[2]string{"Content-Encoding: compress\r\n", "x"}, Unknown},
		"two codings":      {[2]string{"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n", "x"}, Unknown},
		"half a comment":   {[2]string{"Content-Transfer-Encoding: base64 (\r\n", "eA=="}, Unknown},
		"two types":        {[2]string{"Content-Type: text/plain\r\nContent-Type: multipart/mixed; boundary=y\r\n", "x"}, Malformed},
		"no boundary":      {[2]string{"Content-Type: multipart/mixed\r\n", "x"}, Malformed},
		"parts in base64":  {[2]string{"Content-Type: multipart/mixed; boundary=y\r\nContent-Transfer-Encoding: base64\r\n", "eA=="}, Unknown},
		"message in gzip":  {[2]string{"Content-Type: message/rfc822\r\nContent-Encoding: gzip\r\n", string(encode(t, "gzip", "x"))}, Unknown},
		"too deep":         {[2]string{nested(9, "")[0], nested(9, "")[1]}, Unknown},
		"a delimiter":      {[2]string{"X: y\r\n--" + boundary + "\r\nContent-Encoding: gzip\r\n", "x"}, Malformed},
		"unknown, nested":  {[2]string{nested(2, "Content-Encoding: compress")[0], nested(2, "Content-Encoding: compress")[1]}, Unknown},
		"unknown transfer": {[2]string{"Content-Transfer-Encoding: x-uuencode\r\n", "x"}, Unknown},
		"no gzip":          {[2]string{"Content-Encoding: gzip\r\n", "this is none of it"}, Malformed},
		"behind its end":   {[2]string{"Content-Encoding: gzip\r\n", string(encode(t, "gzip", "x")) + "and more"}, Malformed},
		"endless header":   {[2]string{strings.Repeat("X: y\r\n", 20_000), "x"}, Oversized},
		"bomb":             {[2]string{"Content-Encoding: gzip\r\n", string(encode(t, "gzip", strings.Repeat("\x00", 32<<20)))}, Oversized},
	} {
		got, err := readRequest(t, s, multipartHeader, []byte(multipartBody(c.part)))
		wantEncodingError(t, name, err, c.kind)
		if len(got) > 1000 {
			t.Errorf("%s: %d bytes went", name, len(got))
		}
	}
}

// manyParts reads as a multipart body of n small parts.
type manyParts struct {
	n    int
	rest string
}

func (m *manyParts) Read(p []byte) (int, error) {
	if m.rest == "" {
		if m.n == 0 {
			return 0, io.EOF
		}
		m.n--
		m.rest = "--" + boundary + "\r\nContent-Transfer-Encoding: base64\r\n\r\nbm90aGluZw==\r\n"
	}
	n := copy(p, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}

// TestManyParts reads a quarter of a million parts, none of which is kept.
func TestManyParts(t *testing.T) {
	n := 250_000
	if testing.Short() {
		n = 50_000
	}
	r, err := formScanner(t).RequestBody(other, multipartHeader, &manyParts{n: n})
	if err != nil {
		t.Fatal(err)
	}
	checkHeap(t, r, 24<<20)
}

// checkHeap reads r to its end and looks at how much memory is in use meanwhile, beyond what was before.
func checkHeap(t testing.TB, r io.Reader, limit uint64) {
	t.Helper()
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before, most := m.HeapAlloc, uint64(0)
	buf := make([]byte, 64<<10)
	var total, seen int64
	for {
		n, err := r.Read(buf)
		total += int64(n)
		if total-seen >= 4<<20 {
			seen = total
			runtime.GC()
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if most > before+limit {
		t.Errorf("%d KB of heap more after %d MB", (most-before)>>10, total>>20)
	}
	t.Logf("%d MB were read with %d KB more of heap", total>>20, (int64(most)-int64(before))>>10)
}

// FuzzMultipart holds the reader that takes parts out against itself in pieces, and checks that nothing else leaves than what
// came, and no encoded part with a token, in whatever it is nested.
func FuzzMultipart(f *testing.F) {
	f.Add("Content-Transfer-Encoding: base64\r\n", "ZHVtbXktNGY5YS1vZi1ib3R0bGUtZGV2", "\r\n", 3, 0)
	f.Add("Content-Encoding: gzip\r\n", "\x1f\x8b", "\n", 1, 1)
	f.Add("Content-Transfer-Encoding: quoted-printable\r\n", "=64ummy-4f9a-of-=\r\nbottle-dev", "--", 7, 2)
	f.Add("Content-Type: message/rfc822\r\n", "Content-Type: multipart/mixed; boundary=inner-1\r\n\r\n--inner-1", "", 7, 3)
	f.Fuzz(func(t *testing.T, head, content, behind string, size, depth int) {
		part := [2]string{head, content}
		for i := range depth & 3 {
			part = inParts(fmt.Sprintf("inner-%d", i), part)
		}
		body := []byte(multipartBody(part, [2]string{"", "x"}) + behind)
		s := formScanner(t)
		read := func(body []byte, wrap func(io.Reader) io.Reader) ([]byte, error) {
			r, err := s.RequestBody(other, multipartHeader, wrap(bytes.NewReader(body)))
			if err != nil {
				t.Fatal(err)
			}
			return io.ReadAll(r)
		}
		whole := func(r io.Reader) io.Reader { return r }
		want, wantErr := read(body, whole)
		got, err := read(body, func(r io.Reader) io.Reader { return &pieceReader{r, 1 + int(uint(size)%64)} })
		if (err == nil) != (wantErr == nil) || err == nil && (!bytes.Equal(want, body) || !bytes.Equal(got, body)) {
			t.Fatalf("%q: whole %v, in pieces %v", body, wantErr, err)
		}
		if !bytes.HasPrefix(body, got) || !bytes.HasPrefix(body, want) {
			t.Fatalf("%q gave %q and %q", body, want, got)
		}
		// Whatever comes before it, a part in base64 behind a delimiter is seen or the body refused.
		tail := "\r\n--" + boundary + "\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=" + "67lpa=74-1x2Y3z=\r\n4W5v6U7t8S9r0Q\r\n--" + boundary + "--"
		if _, err := read(append(body, tail...), whole); err == nil {
			t.Fatalf("%q before it hides a part", body)
		}
	})
}

// pieceReader reads n bytes at a time.
type pieceReader struct {
	r io.Reader
	n int
}

func (p *pieceReader) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.n)]) }

package formats_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/ascii85"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf16"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"gatewayd/gateway/formats"
	"gatewayd/gateway/pipelock"
)

// attempt is what a guest sends, one or several of: a head, a body and messages of a WebSocket connection.
type attempt struct {
	target   string
	head     http.Header
	header   http.Header // of the body
	body     string
	messages []string
}

// What becomes of an attempt.
const (
	found   = "found"
	refused = "refused"
	missed  = "–"
)

// try returns what becomes of an attempt.
func try(t *testing.T, s *pipelock.Scanner, a attempt) string {
	t.Helper()
	for _, f := range s.Request("host.example", a.target, a.head, nil) {
		if f.Action == pipelock.Block {
			return found
		}
	}
	readers := []func() (io.Reader, error){func() (io.Reader, error) {
		return s.RequestBody("host.example", a.header, iotest.HalfReader(strings.NewReader(a.body)))
	}}
	m := s.Messages("host.example", false)
	for _, text := range a.messages {
		readers = append(readers, func() (io.Reader, error) { return m.Next(iotest.OneByteReader(strings.NewReader(text)), false), nil })
	}
	for _, open := range readers {
		r, err := open()
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		var leak *pipelock.LeakError
		var encoding *pipelock.EncodingError
		switch {
		case errors.As(err, &leak):
			return found
		case errors.As(err, &encoding):
			return refused
		case err != nil:
			t.Fatal(err)
		}
	}
	return missed
}

// evasion is a way in which a secret might leave unseen, and what becomes of one that is known and of one by its form.
type evasion struct {
	how         string
	known, form string
	try         func(secret string) attempt
}

// each writes every byte in a format.
func each(text, format string) string {
	var b strings.Builder
	for i := range len(text) {
		fmt.Fprintf(&b, format, text[i])
	}
	return b.String()
}

// pack returns text as w writes it.
func pack[W io.WriteCloser](w func(io.Writer) W, text ...string) string {
	var b bytes.Buffer
	z := w(&b)
	for _, s := range text {
		io.WriteString(z, s)
		if f, ok := any(z).(interface{ Flush() error }); ok {
			f.Flush()
		}
	}
	z.Close()
	return b.String()
}

func zipOf(method uint16, text string) string {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, _ := w.CreateHeader(&zip.FileHeader{Name: "notes.txt", Method: method})
	io.WriteString(f, "notes\n"+text+"\n")
	w.Close()
	return b.String()
}

func tarOf(text string) string {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "notes.txt", Size: int64(len(text))})
	io.WriteString(w, text)
	w.Close()
	return b.String()
}

func quoted(text string) string {
	b, _ := json.Marshal(text)
	return string(b)
}

func rot13(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return 'a' + (r-'a'+13)%26
		case 'A' <= r && r <= 'Z':
			return 'A' + (r-'A'+13)%26
		}
		return r
	}, text)
}

func wide(text string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(text)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return string(b)
}

// evasionGroups are the cases, by where they are.
func evasionGroups() (names []string, groups map[string][]evasion) {
	std, raw := base64.StdEncoding.EncodeToString, base64.RawURLEncoding.EncodeToString
	b64 := func(s string) string { return std([]byte(s)) }
	hexed := func(s string) string { return hex.EncodeToString([]byte(s)) }
	target := func(f func(string) string) func(string) attempt {
		return func(s string) attempt { return attempt{target: f(s)} }
	}
	field := func(name string, f func(string) string) func(string) attempt {
		return func(s string) attempt { return attempt{target: "/", head: http.Header{name: {f(s)}}} }
	}
	body := func(contentType, coding string, f func(string) string) func(string) attempt {
		h := http.Header{}
		if contentType != "" {
			h.Set("Content-Type", contentType)
		}
		if coding != "" {
			h.Set("Content-Encoding", coding)
		}
		return func(s string) attempt { return attempt{header: h, body: f(s)} }
	}
	same := func(s string) string { return s }
	in := func(before, after string) func(string) string {
		return func(s string) string { return before + s + after }
	}
	of := func(before string, f func(string) string, after string) func(string) string {
		return func(s string) string { return before + f(s) + after }
	}
	part := func(head string, f func(string) string) func(string) attempt {
		return body("multipart/form-data; boundary=b", "", of("--b\r\n"+head+"\r\n\r\n", f, "\r\n--b--\r\n"))
	}
	half := func(s string) (string, string) { return s[:len(s)/2], s[len(s)/2:] }
	split := func(between string) func(string) string {
		return func(s string) string { a, b := half(s); return a + between + b }
	}
	lines := func(n int) func(string) attempt {
		return body("text/plain", "", func(s string) string {
			text := b64("some lines of a file, as many as it takes\nto come to it:\n" + s + "\nand some more of them\n")
			var b strings.Builder
			for ; len(text) > n; text = text[n:] {
				b.WriteString(text[:n] + "\r\n")
			}
			return b.String() + text + "\r\n"
		})
	}
	gz := func(s string) string { return pack(func(w io.Writer) *gzip.Writer { return gzip.NewWriter(w) }, s) }
	const form, asJSON = "application/x-www-form-urlencoded", "application/json"
	groups = map[string][]evasion{
		"Method line and fields": {
			{"in a segment of the path", found, found, target(in("/files/", "/raw"))},
			{"as a parameter's value", found, found, target(in("/x?a=b&q=", "&c=d"))},
			{"as a parameter's name", found, found, target(in("/x?", "=1"))},
			{"percent-encoded", found, found, target(func(s string) string { return "/x?q=" + each(s, "%%%02x") })},
			{"percent-encoded twice", found, found, target(func(s string) string { return "/x?q=" + each(s, "%%25%02x") })},
			{"percent-encoded three times", found, missed, target(func(s string) string { return "/x?q=" + each(s, "%%2525%02x") })},
			{"base64 in a parameter", found, found, target(of("/x?q=", func(s string) string { return raw([]byte(s)) }, "&c=d"))},
			{"base64 with percent-encoded signs", found, found, target(of("/x?q=", func(s string) string {
				return strings.NewReplacer("+", "%2B", "/", "%2F", "=", "%3D").Replace(b64(s + "~~~"))
			}, "&c=d"))},
			{"hexadecimal in the path", found, found, target(of("/x/", hexed, "/y"))},
			{"base32 in a parameter", missed, missed, target(of("/x?q=", func(s string) string { return base32.StdEncoding.EncodeToString([]byte(s)) }, ""))},
			{"in two parameters", missed, missed, target(split("&b="))},
			{"in path and query", missed, missed, target(split("?"))},
			{"in a field", found, found, field("X-Note", same)},
			{"as a field's name", found, found, func(s string) attempt { return attempt{target: "/", head: http.Header{s: {"1"}}} }},
			{"in User-Agent", found, found, field("User-Agent", in("client/1.0 (", ")"))},
			{"in a cookie", found, found, field("Cookie", in("a=b; c=", "; d=e"))},
			{"as a password", found, found, field("Authorization", of("Basic ", func(s string) string { return b64("user:" + s) }, ""))},
			{"as a password, in another field", found, found, field("X-Auth", of("Basic ", func(s string) string { return b64("user:" + s) }, ""))},
			{"as a bearer", found, found, field("Authorization", in("Bearer ", ""))},
			{"base64 in a field", found, found, field("X-Note", b64)},
			{"percent-encoded in a field", found, found, field("Referer", func(s string) string { return "https://a.test/?q=" + each(s, "%%%02X") })},
			{"escaped as in JSON, in a field", found, missed, field("X-Json", func(s string) string { return `{"a":"` + each(s, `\u%04x`) + `"}` })},
			{"in two fields", missed, missed, func(s string) attempt {
				a, b := half(s)
				return attempt{target: "/", head: http.Header{"X-A": {a}, "X-B": {b}}}
			}},
			{"in two lines of a field", missed, missed, func(s string) attempt {
				a, b := half(s)
				return attempt{target: "/", head: http.Header{"X-A": {a, b}}}
			}},
		},
		"Bodies of text": {
			{"as it is", found, found, body("", "", same)},
			{"under a type that says it is none", found, found, body("image/png", "", same)},
			{"behind 1 MB of other text", found, found, body("text/plain", "", in(strings.Repeat("a text, and more of it. ", 1<<20/24), ""))},
			{"as a JSON string", found, found, body(asJSON, "", of(`{"a":`, quoted, `}`))},
			{"as a JSON key", found, found, body(asJSON, "", of(`{`, quoted, `:1}`))},
			{"escaped in JSON", found, found, body(asJSON, "", func(s string) string { return `{"a":"` + each(s, `\u%04X`) + `"}` })},
			{"escaped in JSON, without saying so", found, found, body("text/plain", "", func(s string) string { return `{"a":"` + each(s, `\u%04X`) + `"}` })},
			{"escaped in JSON in a JSON string", found, found, body(asJSON, "", func(s string) string { return quoted(`{"a":"` + each(s, `\u%04x`) + `"}`) })},
			{"a form's field", found, found, body(form, "", in("a=b&c=", "&d=e"))},
			{"a form's field, percent-encoded", found, found, body(form, "", func(s string) string { return "c=" + each(s, "%%%02x") })},
			{"a form's key, percent-encoded", found, found, body(form, "", func(s string) string { return each(s, "%%%02x") + "=1" })},
			{"percent-encoded, without saying so", found, missed, body("text/plain", "", func(s string) string { return each(s, "%%%02x") })},
			{"in a comment of XML", found, found, body("application/xml", "", in("<a><!-- ", " --></a>"))},
			{"as numbers of characters in HTML", missed, missed, body("text/html", "", func(s string) string { return each(s, "&#%d;") })},
			{"in escapes of a shell or of C", missed, missed, body("text/plain", "", func(s string) string { return each(s, `\x%02x`) })},
			{"in UTF-16", missed, missed, body("text/plain; charset=utf-16le", "", wide)},
			{"in full-width letters", missed, missed, body("text/plain", "", func(s string) string {
				return strings.Map(func(r rune) rune { return r + 0xfee0 }, s)
			})},
		},
		"Bodies of encoded text": {
			{"base64", found, found, body(asJSON, "", of(`{"a":"`, b64, `"}`))},
			{"base64, one byte on", found, found, body(asJSON, "", of(`{"a":"`, func(s string) string { return b64("\n" + s) }, `"}`))},
			{"base64url", found, found, body(asJSON, "", of(`{"a":"`, func(s string) string { return raw([]byte(s)) }, `"}`))},
			{"base64 in lines of 76", found, found, lines(76)},
			{"base64 in lines of 64", found, found, lines(64)},
			{"base64 in lines of 40", missed, missed, lines(40)},
			{"base64 of text with JSON's escapes", found, missed, body(asJSON, "", func(s string) string { return `{"a":"` + b64(`{"b":"`+each(s, `\u%04x`)+`"}`) + `"}` })},
			{"base64 twice", found, missed, body("text/plain", "", func(s string) string { return b64(b64(s)) })},
			{"base64 of hexadecimal", found, missed, body("text/plain", "", func(s string) string { return b64(hexed(s)) })},
			{"base64 of gzip", missed, missed, body("text/plain", "", func(s string) string { return b64(gz(s)) })},
			{"hexadecimal", found, found, body("text/plain", "", hexed)},
			{"hexadecimal in capitals", found, found, body("text/plain", "", func(s string) string { return strings.ToUpper(hexed(s)) })},
			{"hexadecimal with colons", missed, missed, body("text/plain", "", func(s string) string { return each(s, "%02x:") })},
			{"base32", missed, missed, body("text/plain", "", func(s string) string { return base32.StdEncoding.EncodeToString([]byte(s)) })},
			{"base85", missed, missed, body("text/plain", "", func(s string) string {
				b := make([]byte, ascii85.MaxEncodedLen(len(s)))
				return string(b[:ascii85.Encode(b, []byte(s))])
			})},
			{"reversed", missed, missed, body("text/plain", "", func(s string) string {
				b := []byte(s)
				slices.Reverse(b)
				return string(b)
			})},
			{"ROT13", missed, missed, body("text/plain", "", rot13)},
			{"each byte changed by a key", missed, missed, body("text/plain", "", func(s string) string {
				b := []byte(s)
				for i := range b {
					b[i] ^= 0x15
				}
				return string(b)
			})},
			{"in capitals", missed, missed, body("text/plain", "", strings.ToUpper)},
			{"with spaces", missed, missed, body("text/plain", "", func(s string) string { return each(s, "%c ") })},
			{"with characters that nobody sees", missed, missed, body("text/plain", "", func(s string) string { return each(s, "%c\u200b") })},
			{"in two strings that are joined", missed, missed, body("text/plain", "", split(`" + "`))},
			{"in two lines", missed, missed, body("text/plain", "", split("\n"))},
		},
		"Bodies in a coding": {
			{"gzip", found, found, body("text/plain", "gzip", gz)},
			{"gzip, cut between blocks", found, found, body("text/plain", "gzip", func(s string) string {
				a, b := half(s)
				return pack(func(w io.Writer) *gzip.Writer { return gzip.NewWriter(w) }, a, b)
			})},
			{"gzip, cut between members", found, found, body("text/plain", "gzip", func(s string) string { a, b := half(s); return gz(a) + gz(b) })},
			{"deflate", found, found, body("text/plain", "deflate", func(s string) string {
				return pack(func(w io.Writer) *zlib.Writer { return zlib.NewWriter(w) }, s)
			})},
			{"br", found, found, body("text/plain", "br", func(s string) string {
				return pack(func(w io.Writer) *brotli.Writer { return brotli.NewWriter(w) }, s)
			})},
			{"zstd", found, found, body("text/plain", "zstd", func(s string) string {
				return pack(func(w io.Writer) *zstd.Encoder { z, _ := zstd.NewWriter(w); return z }, s)
			})},
			{"base64 in gzip", found, found, body("text/plain", "gzip", func(s string) string { return gz(b64(s)) })},
			{"gzip in gzip, as said", refused, refused, body("text/plain", "gzip, gzip", func(s string) string { return gz(gz(s)) })},
			{"gzip in gzip, one said", missed, missed, body("text/plain", "gzip", func(s string) string { return gz(gz(s)) })},
			{"gzip without saying so", missed, missed, body("text/plain", "", gz)},
			{"behind the end of gzip", found, refused, body("text/plain", "gzip", func(s string) string { return gz("clean") + s })},
			{"a coding that is not known", refused, refused, body("text/plain", "compress", same)},
			{"a bomb before it", refused, refused, body("text/plain", "gzip", func(s string) string { return gz(strings.Repeat("\x00", 16<<20) + s) })},
		},
		"Bodies that are taken apart": {
			{"multipart, a field", found, found, part(`Content-Disposition: form-data; name="a"`, same)},
			{"multipart, a file's name", found, found, func(s string) attempt {
				return part(`Content-Disposition: form-data; name="a"; filename="`+s+`"`, same)("x")
			}},
			{"multipart, base64", found, found, part("Content-Transfer-Encoding: base64", b64)},
			{"multipart, quoted-printable", found, found, part("Content-Transfer-Encoding: quoted-printable", func(s string) string { return each(s, "=%02X") })},
			{"multipart, quoted-printable, with soft breaks", found, found, part("Content-Transfer-Encoding: quoted-printable", split("=\r\n"))},
			{"multipart, gzip", found, found, part("Content-Encoding: gzip", gz)},
			{"multipart within multipart, base64", found, found, part(`Content-Type: multipart/mixed; boundary=c`, of("--c\r\nContent-Transfer-Encoding: base64\r\n\r\n", b64, "\r\n--c--"))},
			{"multipart, in two parts", missed, missed, part("X: y", split("\r\n--b\r\nX: y\r\n\r\n"))},
			{"multipart without a boundary", refused, refused, body("multipart/form-data", "", same)},
			{"gRPC, a field", found, found, body("application/grpc", "", func(s string) string {
				return "\x00\x00\x00\x00" + string(rune(len(s)+2)) + "\x0a" + string(rune(len(s))) + s
			})},
			{"gRPC, a compression that is not known", refused, refused, func(s string) attempt {
				return attempt{header: http.Header{"Content-Type": {"application/grpc"}, "Grpc-Encoding": {"lz4"}}, body: s}
			}},
			{"a tar archive", found, found, body("application/x-tar", "", tarOf)},
			{"a zip archive, stored", found, found, body("application/zip", "", func(s string) string { return zipOf(zip.Store, s) })},
			{"a zip archive, compressed", missed, missed, body("application/zip", "", func(s string) string { return zipOf(zip.Deflate, s) })},
			{"an object of a git pack", missed, missed, body("application/x-git-receive-pack-request", "", func(s string) string {
				return "PACK" + pack(func(w io.Writer) *zlib.Writer { return zlib.NewWriter(w) }, s)
			})},
			{"in two requests", missed, missed, body("text/plain", "", func(s string) string { a, _ := half(s); return a })},
		},
		"WebSocket messages": {
			{"as it is", found, found, func(s string) attempt { return attempt{messages: []string{"x", s}} }},
			{"escaped in JSON", found, found, func(s string) attempt {
				return attempt{messages: []string{`{"a":"` + each(s, `\u%04x`) + `"}`}}
			}},
			{"base64", found, found, func(s string) attempt { return attempt{messages: []string{b64(s)}} }},
			{"in two messages", found, missed, func(s string) attempt { a, b := half(s); return attempt{messages: []string{a, b}} }},
			{"in two messages, another between", missed, missed, func(s string) attempt { a, b := half(s); return attempt{messages: []string{a, "x", b}} }},
		},
	}
	return []string{"Method line and fields", "Bodies of text", "Bodies of encoded text", "Bodies in a coding", "Bodies that are taken apart", "WebSocket messages"}, groups
}

// TestEvasions holds what becomes of each way to hide a secret against what is claimed, and against docs/SCANNER.md. With -write
// it writes the page.
func TestEvasions(t *testing.T) {
	set, err := formats.Default()
	if err != nil {
		t.Fatal(err)
	}
	const secret, token = "9qL2/xT7+bN4vK8sR1mZ6wY3cJ5hG0pD", "gl" + "pat-1x2Y3z4W5v6U7t8S9r0Q"
	known := pipelock.New([]pipelock.Token{{Name: "secret", Value: secret}}).WithFormats(set, set.Policy(set.IDs(), false))
	form := pipelock.New(nil).WithFormats(set, set.Policy(nil, false))
	var b strings.Builder
	names, groups := evasionGroups()
	all, caught := 0, 0
	for _, name := range names {
		fmt.Fprintf(&b, "| %s | known value | by its form |\n|---|---|---|\n", name)
		for _, e := range groups[name] {
			k, f := try(t, known, e.try(secret)), try(t, form, e.try(token))
			if k != e.known || f != e.form {
				t.Errorf("%s, %s: known %s, want %s; by its form %s, want %s", name, e.how, k, e.known, f, e.form)
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", e.how, k, f)
			if all++; k != missed && f != missed {
				caught++
			}
		}
		b.WriteString("\n")
	}
	if all < 60 {
		t.Errorf("%d cases", all)
	}
	page(t, fmt.Sprintf("%d ways, of which %d are found or refused for known values and for forms alike.\n\n%s", all, caught, b.String()))
}

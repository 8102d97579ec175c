package pipelock

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
	"google.golang.org/protobuf/encoding/protowire"
)

// grpcMessage is a message as it is sent.
func grpcMessage(flags byte, payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(payload))), payload...)
}

// protoMessage has the text in a field within a field, with fields around it.
func protoMessage(text string) []byte {
	inner := protowire.AppendTag(nil, 8, protowire.BytesType)
	inner = protowire.AppendString(inner, text)
	inner = protowire.AppendTag(inner, 8, protowire.BytesType) // a tag that is the letter B
	inner = protowire.AppendString(inner, "next")
	out := protowire.AppendTag(nil, 1, protowire.VarintType)
	out = protowire.AppendVarint(out, 150)
	out = protowire.AppendTag(out, 9, protowire.Fixed64Type)
	out = protowire.AppendFixed64(out, 1)
	out = protowire.AppendTag(out, 10, protowire.Fixed32Type)
	out = protowire.AppendFixed32(out, 1)
	out = protowire.AppendTag(out, 12, protowire.BytesType)
	return protowire.AppendBytes(out, inner)
}

func grpcHeader(media, coding string) http.Header {
	h := http.Header{"Content-Type": {media}}
	if coding != "" {
		h.Set("Grpc-Encoding", coding)
	}
	return h
}

func connectHeader(media, coding string) http.Header {
	h := http.Header{"Content-Type": {media}}
	if coding != "" {
		h.Set("Connect-Content-Encoding", coding)
	}
	return h
}

func compress(t testing.TB, coding string, payload []byte) []byte {
	t.Helper()
	if coding != "snappy" {
		return encode(t, coding, string(payload))
	}
	var b bytes.Buffer
	w := s2.NewWriter(&b, s2.WriterSnappyCompat(), s2.WriterConcurrency(1))
	if _, err := w.Write(payload); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var compressions = []string{"gzip", "DEFLATE", "zstd", "snappy"}

func TestGRPCMessages(t *testing.T) {
	s := formScanner(t)
	clean := grpcMessage(0, protoMessage("nothing of interest"))
	for rule, token := range formTokens() {
		bodies := map[string]struct {
			h    http.Header
			body []byte
		}{
			"plain":         {grpcHeader("application/grpc", ""), grpcMessage(0, protoMessage(token))},
			"proto":         {grpcHeader("application/grpc+proto", "identity"), grpcMessage(0, protoMessage(token))},
			"json":          {grpcHeader("application/grpc+json", ""), grpcMessage(0, []byte(`{"a":"line\n`+token+`\n"}`))},
			"web":           {grpcHeader("application/grpc-web+proto", ""), grpcMessage(0, protoMessage(token))},
			"connect":       {connectHeader("application/connect+proto", ""), grpcMessage(0, protoMessage(token))},
			"connect, json": {connectHeader("application/connect+json", "br"), grpcMessage(3, compress(t, "br", []byte(`{"a":"`+token+`"}`)))},
			"text": {grpcHeader("application/grpc-web-text", ""),
				[]byte(base64.StdEncoding.EncodeToString(clean) + base64.StdEncoding.EncodeToString(grpcMessage(0, protoMessage(token))))},
		}
		for _, coding := range compressions {
			bodies[coding] = struct {
				h    http.Header
				body []byte
			}{grpcHeader("application/grpc", coding), grpcMessage(1, compress(t, coding, protoMessage(token)))}
			bodies["connect, "+coding] = struct {
				h    http.Header
				body []byte
			}{connectHeader("application/connect+proto", coding), grpcMessage(1, compress(t, coding, protoMessage(token)))}
		}
		for name, c := range bodies {
			if name != "text" {
				c.body = append(bytes.Clone(clean), c.body...)
			}
			got, err := readRequest(t, s, c.h, c.body)
			var leak *LeakError
			if !errors.As(err, &leak) || leak.Finding.Rule != rule {
				t.Errorf("%s, %s: %v", rule, name, err)
			}
			if len(got) > len(c.body)-len(token)+leastHeld {
				t.Errorf("%s, %s: %d of %d bytes went", rule, name, len(got), len(c.body))
			}
		}
	}
}

// TestFieldsAreTexts finds a token whatever the length before it and the tag behind it look like.
func TestFieldsAreTexts(t *testing.T) {
	s := formScanner(t).withoutTokens()
	token := formTokens()["slack-bot-token"] + "a" // of 57 bytes, which is the digit 9
	if len(token) != '9' {
		t.Fatalf("the token has %d bytes", len(token))
	}
	field := func(number protowire.Number, text []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), text)
	}
	long := field(3, bytes.Repeat([]byte("padding "), 300<<10/8))
	group := protowire.AppendTag(nil, 5, protowire.StartGroupType)
	group = append(append(group, protoMessage(token)...), protowire.AppendTag(nil, 5, protowire.EndGroupType)...)
	for name, message := range map[string][]byte{
		"short":                      protoMessage(token),
		"behind a long field":        append(long, protoMessage(token)...),
		"before a long field":        append(protoMessage(token), long...),
		"between":                    slices.Concat(long, protoMessage(token), long),
		"in a long field":            field(7, append(long, protoMessage(token)...)),
		"in a long one, deep":        field(7, field(8, field(9, slices.Concat(long, protoMessage(token), long)))),
		"begins a long field":        field(7, []byte(token+strings.Repeat(" padding", 300<<10/8))),
		"ends a long field":          append(field(7, []byte(strings.Repeat("padding ", 300<<10/8)+token)), 'B', 0),
		"in a group":                 group,
		"in a group, long":           append(long, group...),
		"in what could be a message": field(7, []byte(token[:len(token)-1]+"\n")),
	} {
		for how, c := range map[string]struct {
			h    http.Header
			body []byte
		}{
			"grpc":          {grpcHeader("application/grpc", ""), grpcMessage(0, message)},
			"grpc, zstd":    {grpcHeader("application/grpc", "zstd"), grpcMessage(1, compress(t, "zstd", message))},
			"connect":       {connectHeader("application/connect+proto", ""), grpcMessage(0, message)},
			"connect, gzip": {connectHeader("application/connect+proto", "gzip"), grpcMessage(1, compress(t, "gzip", message))},
			"unary":         {http.Header{"Content-Type": {"application/proto"}}, message},
			"unary, gzip":   {http.Header{"Content-Type": {"application/x-protobuf"}, "Content-Encoding": {"gzip"}}, compress(t, "gzip", message)},
		} {
			var leak *LeakError
			got, err := readRequest(t, s, c.h, c.body)
			if !errors.As(err, &leak) {
				t.Errorf("%s, %s: %v", name, how, err)
			}
			if bytes.Contains(got, []byte(token[:len(token)/2])) {
				t.Errorf("%s, %s: the token went", name, how)
			}
		}
	}
	note := append(protowire.AppendTag(nil, 1, protowire.BytesType), "\x05clean"...)
	for _, clean := range [][]byte{note, slices.Concat(long, note), field(7, slices.Concat(long, note, long)), group[:len(group)/2]} {
		if _, err := readRequest(t, s, grpcHeader("application/grpc", ""), grpcMessage(0, clean)); err != nil {
			t.Errorf("clean: %v", err)
		}
	}
}

func TestGRPCRefusals(t *testing.T) {
	s := formScanner(t)
	for name, c := range map[string]struct {
		h    http.Header
		body []byte
		kind EncodingKind
	}{
		"unknown compression": {grpcHeader("application/grpc", "lz4"), nil, Unknown},
		"two":                 {grpcHeader("application/grpc", "gzip, gzip"), nil, Unknown},
		"no compression":      {grpcHeader("application/grpc", ""), grpcMessage(1, compress(t, "gzip", []byte("x"))), Malformed},
		"trailers in connect": {connectHeader("application/connect+proto", ""), grpcMessage(0x80, []byte("x")), Malformed},
		"connect, unknown":    {connectHeader("application/connect+json", "lz4"), nil, Unknown},
		"connect, none named": {connectHeader("application/connect+json", ""), grpcMessage(1, compress(t, "gzip", []byte("x"))), Malformed},
		"of what":             {connectHeader("application/json", "gzip"), nil, Unknown},
		"of gRPC, in connect": {http.Header{"Content-Type": {"application/connect+proto"}, "Grpc-Encoding": {"gzip"}}, nil, Unknown},
		"reserved flag":       {grpcHeader("application/grpc", ""), grpcMessage(2, []byte("x")), Malformed},
		"not what it says":    {grpcHeader("application/grpc", "gzip"), grpcMessage(1, []byte("this is no gzip")), Malformed},
		"cut":                 {grpcHeader("application/grpc", "gzip"), grpcMessage(1, compress(t, "gzip", []byte("xyz")))[:20], Malformed},
		"bytes behind":        {grpcHeader("application/grpc", "gzip"), grpcMessage(1, append(compress(t, "gzip", []byte("x")), "and more"...)), Malformed},
		"bomb":                {grpcHeader("application/grpc", "gzip"), grpcMessage(1, compress(t, "gzip", make([]byte, 32<<20))), Oversized},
		"many small bombs":    {grpcHeader("application/grpc", "zstd"), bytes.Repeat(grpcMessage(1, compress(t, "zstd", make([]byte, 1<<20))), 20), Oversized},
		"empty for ever":      {grpcHeader("application/grpc", "DEFLATE"), grpcMessage(1, append([]byte{0x78, 0x9c}, bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, 1<<19)...)), Oversized},
	} {
		r, err := s.RequestBody(other, c.h, bytes.NewReader(c.body))
		if err == nil {
			_, err = io.ReadAll(r)
		}
		wantEncodingError(t, name, err, c.kind)
	}
}

// TestGRPCIsLive reads each message before the next is written, whatever it says, compressed or not.
func TestGRPCIsLive(t *testing.T) {
	for _, coding := range append([]string{""}, compressions...) {
		pr, pw := io.Pipe()
		r, err := formScanner(t).RequestBody(other, grpcHeader("application/grpc", coding), pr)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"hello", "", "gh" + "p_", "d", "dummy-4f9a-of", formTokens()["gitlab-pat"][:12], strings.Repeat("long ", 100_000)} {
			message := grpcMessage(0, protoMessage(text))
			if coding != "" {
				message = grpcMessage(1, compress(t, coding, protoMessage(text)))
			}
			go func() { _, _ = pw.Write(message) }()
			got := make([]byte, len(message))
			if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, message) {
				t.Fatalf("%q, %.20q: %v", coding, text, err)
			}
		}
		if err := pr.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzGRPC checks that whatever is not refused comes out as it went in, however it is cut, and that cutting changes nothing.
func FuzzGRPC(f *testing.F) {
	f.Add(grpcMessage(0, protoMessage("hello")), "", 3)
	f.Add(grpcMessage(1, compress(f, "gzip", protoMessage(formTokens()["gitlab-pat"]))), "gzip", 1)
	f.Add(append(grpcMessage(0, nil), 0, 0, 0), "zstd", 2)
	f.Fuzz(func(t *testing.T, body []byte, coding string, size int) {
		media := "application/grpc"
		if size%3 == 0 {
			media = "application/grpc-web-text"
		}
		s, h := formScanner(t), grpcHeader(media, coding)
		whole, err := s.RequestBody(other, h, bytes.NewReader(body))
		if err != nil {
			return
		}
		want, wantErr := io.ReadAll(whole)
		cut, err := s.RequestBody(other, h, &pieceReader{bytes.NewReader(body), 1 + int(uint(size)%32)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(cut)
		if (err == nil) != (wantErr == nil) || !bytes.HasPrefix(body, got) || !bytes.HasPrefix(body, want) || err == nil && (len(got) != len(body) || len(want) != len(body)) {
			t.Fatalf("%x: whole %v after %d bytes, in pieces %v after %d", body, wantErr, len(want), err, len(got))
		}
	})
}

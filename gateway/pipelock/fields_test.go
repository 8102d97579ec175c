package pipelock

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// slowFields is the definition of eachField, by the library's parser. Groups are no texts, what is in them is.
func slowFields(message []byte, depth int, found func([]byte)) {
	found(message)
	var fields [][]byte
	for rest := message; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 && errors.Is(protowire.ParseError(n), io.ErrUnexpectedEOF) || number < protowire.MinValidNumber || depth == 0 {
			return
		}
		rest = rest[n:]
		if kind == protowire.StartGroupType || kind == protowire.EndGroupType {
			continue
		}
		n = protowire.ConsumeFieldValue(number, kind, rest)
		if n < 0 {
			return
		}
		if kind == protowire.BytesType {
			field, _ := protowire.ConsumeBytes(rest)
			fields = append(fields, field)
		}
		rest = rest[n:]
	}
	for _, field := range fields {
		slowFields(field, depth-1, found)
	}
}

// FuzzEachField holds the texts of a message against those that the library's parser finds.
func FuzzEachField(f *testing.F) {
	f.Add(protoMessage("hello"))
	f.Add(protowire.AppendTag(protoMessage("x"), 5, protowire.StartGroupType))
	f.Add([]byte{0x0a, 0x80, 0x80, 0x00, 0x0a, 0x7f})
	f.Fuzz(func(t *testing.T, message []byte) {
		var got, want [][]byte
		eachField(message, fieldDepth, func(text []byte) { got = append(got, text) })
		slowFields(message, fieldDepth, func(text []byte) { want = append(want, text) })
		for _, text := range want {
			if !slices.ContainsFunc(got, func(b []byte) bool { return bytes.Equal(b, text) }) {
				t.Fatalf("%x: missed %x", message, text)
			}
		}
		for _, text := range got {
			if !bytes.Contains(message, text) {
				t.Fatalf("%x has no %x", message, text)
			}
		}
	})
}

// FuzzFields makes sure that a message which is too long to be kept is searched no worse than one that is kept, however it is
// cut, and that what waits is bounded.
func FuzzFields(f *testing.F) {
	token := []byte(formTokens()["slack-bot-token"] + "a")
	f.Add(protoMessage(string(token)), uint64(1), uint8(3), false)
	f.Add(append(protoMessage("x"), protoMessage(string(protoMessage(string(token))))...), uint64(2), uint8(70), true)
	f.Fuzz(func(t *testing.T, message []byte, seed uint64, most uint8, sized bool) {
		if len(message) > 1<<14 {
			return
		}
		rng := rand.New(rand.NewPCG(seed, 4))
		if seed%2 == 0 { // what is changed at random has seldom a token in a field
			message = protowire.AppendBytes(append(message, 0x0a), token)
		}
		st := formScanner(t).withoutTokens().Stream(other, "body")
		want := st.lookAtFields(message)
		within := newFields(st)
		within.most = int(most)
		size := int64(unknown)
		if sized {
			size = int64(len(message))
		}
		within.begin(size)
		var leak *LeakError
		for rest := message; len(rest) > 0 && leak == nil; {
			n := 1 + rng.IntN(min(len(rest), 40))
			leak = within.push(slices.Clone(rest[:n]))
			rest = rest[n:]
			if within.pending() > len(message) || len(within.short) > within.most || len(within.open) > fieldDepth+1 {
				t.Fatalf("%d bytes wait, %d are kept, %d fields are open", within.pending(), len(within.short), len(within.open))
			}
		}
		if leak == nil {
			leak = within.end()
		}
		if want != nil && leak == nil {
			t.Fatalf("%x: missed %s", message, want.Finding.Rule)
		}
	})
}

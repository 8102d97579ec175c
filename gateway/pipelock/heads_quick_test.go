package pipelock

import (
	"encoding/base64"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// TestQuickLook puts tokens, whole and cut, anywhere in heads, in every encoding, and compares what is found with what a scan of each text
// finds.
func TestQuickLook(t *testing.T) {
	s := formScanner(t)
	rnd := rand.New(rand.NewPCG(7, 77))
	all := []string{"", "*/*", "text/html", "gzip, br", "client/1.2.3 (linux; x86_64)", "0198d3f2-7c3e-4a41-9d58-3b6f0d7c21ab", "100%", "basic", "Basic dTpw"}
	for _, token := range append(mapValues(formTokens()), dummy, secret) {
		for _, coded := range mapValues(encodings(token)) {
			all = append(all, coded, token[:len(token)/2], token[len(token)/2:])
		}
		all = append(all, "Basic "+base64.StdEncoding.EncodeToString([]byte("u:"+token)))
	}
	names := []string{"Accept", "Cookie", "Authorization", "X-Any", "User-Agent", "x-lower", secret, "Skipped"}
	skip := []string{"skipped"}
	clean, found := 0, 0
	for range 20000 {
		pick := func() string {
			if rnd.IntN(3) > 0 {
				return all[rnd.IntN(9)]
			}
			return all[rnd.IntN(len(all))]
		}
		target := "/" + strings.Join([]string{pick(), pick()}, string("/?&#"[rnd.IntN(4)]))
		h := http.Header{}
		for range rnd.IntN(4) {
			name := names[min(rnd.IntN(12), len(names)-1)]
			h[name] = append(h[name], pick())
		}
		each := texts{s: s, known: s.now(), host: other}
		each.head(target, h, skip)
		if got := s.Request(other, target, h, skip); !reflect.DeepEqual(got, each.found) {
			t.Fatalf("%q %q: found %+v, text by text %+v", target, h, got, each.found)
		}
		if quick := (&texts{s: s, known: s.now(), host: other}); quick.nothing(target, h, skip) {
			clean++
		}
		if len(each.found) > 0 {
			found++
		}
	}
	if clean < 1000 || found < 1000 {
		t.Errorf("%d heads were clean at once and %d had something: too few of either to compare", clean, found)
	}
}

// mapValues returns what is in m, in no order.
func mapValues(m map[string]string) (values []string) {
	for _, v := range m {
		values = append(values, v)
	}
	return values
}

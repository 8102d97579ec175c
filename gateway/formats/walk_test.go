package formats

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// FuzzWalk holds the walk of this processor against the one in Go: the same hits in each lane, and the same states behind them.
func FuzzWalk(f *testing.F) {
	k := defaultSet(f).keywords
	f.Add([]byte("key=api=token=auth="), 0)
	f.Add([]byte("the words of a text that has no literals in it but this token, "), 100)
	f.Add([]byte(strings.Repeat("xoxb-", 60)), 255)
	f.Fuzz(func(t *testing.T, some []byte, first int) {
		if len(some) == 0 {
			return
		}
		var text [lanes * lane]byte
		for n := 0; n < len(text); {
			n += copy(text[n:], some)
		}
		i, begin := uint(first)%lane, [lanes]hit{0, 1 << 16, 1<<32 - 1<<16}
		want, got := new(hits), new(hits)
		wantStates, states := [lanes]uint{}, [lanes]uint{}
		walkInGo(&text, k.next, &k.class, i, &wantStates, want, &begin)
		walk(&text, k.next, &k.class, i, &states, got, &begin)
		if states != wantStates || got.n != want.n {
			t.Fatalf("%q from %d: states %v and %v hits, want %v and %v", some, i, states, got.n, wantStates, want.n)
		}
		for l, n := range want.n {
			if !slices.Equal(got.at[l][:n], want.at[l][:n]) {
				t.Fatalf("%q from %d, lane %d: %x, want %x", some, i, l, got.at[l][:n], want.at[l][:n])
			}
		}
	})
}

// TestLanes makes sure that literals are found where lanes meet, in texts of every length, as they are one byte after the other.
func TestLanes(t *testing.T) {
	k := defaultSet(t).keywords
	line := []byte("a token, some keys; xoxb-1 and glpat- or eyJ in words ")
	for length := range lanes*lane + 2*lanes {
		text := bytes.Repeat(line, length/len(line)+1)[:length]
		h, want, got := new(hits), []hit(nil), []hit(nil)
		state := uint16(0)
		for i, c := range text {
			if state = k.next[state+uint16(k.class[c])]; state >= accepts {
				want = append(want, hit(i+1)<<16|hit(state))
			}
		}
		behind := uint16(0)
		for from := 0; from < len(text); {
			n, after := k.find(text, from, behind, h)
			for l := range h.at {
				for _, x := range h.at[l][:h.n[l]] {
					got = append(got, hit(from)<<16+x)
				}
			}
			from, behind = from+n, after
		}
		if !slices.Equal(got, want) || behind != state {
			t.Fatalf("%d bytes: %x, want %x; state %d, want %d", length, got, want, behind, state)
		}
	}
}

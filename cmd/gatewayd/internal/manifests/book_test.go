package manifests

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// load understands "NAME VALUE" and refuses all else.
func load(f File) (string, string, error) {
	words := strings.Fields(string(f.Text))
	if len(words) != 2 {
		return "", "", fmt.Errorf("%s: want NAME VALUE", f.Path)
	}
	if words[1] == "bad" {
		return words[0], "", fmt.Errorf("%s: bad value", f.Path)
	}
	return words[0], words[1], nil
}

// found makes files from "PATH=TEXT"; "PATH!" could not be read.
func found(specs ...string) (out []File) {
	for _, s := range specs {
		if path, ok := strings.CutSuffix(s, "!"); ok {
			out = append(out, File{Path: path, Err: ErrBusy})
			continue
		}
		path, text, _ := strings.Cut(s, "=")
		out = append(out, File{Path: path, Text: []byte(text)})
	}
	return out
}

func describe(b *Book[string]) (out []string) {
	for _, e := range b.Entries() {
		s := fmt.Sprintf("%s:%s:%s", e.File, e.State, e.Bottle)
		if e.State != Shut {
			s += ":" + e.Value
		}
		out = append(out, s)
	}
	return out
}

func TestUpdate(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps [][]string // each: the files found; the last element, a slice of its own, what is then in force
		want  []string
	}{
		{"one", [][]string{{"1=a v1"}}, []string{"1:running:a:v1"}},
		{"changed", [][]string{{"1=a v1"}, {"1=a v2"}}, []string{"1:running:a:v2"}},
		{"broken at start is shut", [][]string{{"1=nonsense"}}, []string{"1:shut:"}},
		{"refused at start is shut", [][]string{{"1=a bad"}}, []string{"1:shut:a"}},
		{"unreadable at start is shut", [][]string{{"1!"}}, []string{"1:shut:"}},
		{"broken later keeps the old", [][]string{{"1=a v1"}, {"1=nonsense"}}, []string{"1:stale:a:v1"}},
		{"refused later keeps the old", [][]string{{"1=a v1"}, {"1=a bad"}}, []string{"1:stale:a:v1"}},
		{"half-written keeps the old", [][]string{{"1=a v1"}, {"1!"}}, []string{"1:stale:a:v1"}},
		{"broken twice keeps the old", [][]string{{"1=a v1"}, {"1=x"}, {"1!"}}, []string{"1:stale:a:v1"}},
		{"mended", [][]string{{"1=a v1"}, {"1=x"}, {"1=a v2"}}, []string{"1:running:a:v2"}},
		{"emptied is shut", [][]string{{"1=a v1"}, {"1="}}, []string{"1:shut:a"}},
		{"only comments is emptied", [][]string{{"1=a v1"}, {"1=---\n# a v1\n\n"}}, []string{"1:shut:a"}},
		{"emptied, then broken, stays shut", [][]string{{"1=a v1"}, {"1="}, {"1=x"}}, []string{"1:shut:"}},
		{"emptied, then half-written, stays shut", [][]string{{"1=a v1"}, {"1="}, {"1!"}}, []string{"1:shut:"}},
		{"deleted is gone", [][]string{{"1=a v1", "2=b v1"}, {"2=b v1"}}, []string{"2:running:b:v1"}},
		{"deleted, then broken, is shut", [][]string{{"1=a v1"}, {}, {"1=a bad"}}, []string{"1:shut:a"}},
		{"all deleted", [][]string{{"1=a v1"}, {}}, nil},
		{"renamed file", [][]string{{"1=a v1"}, {"2=a v1"}}, []string{"2:running:a:v1"}},
		{"renamed bottle", [][]string{{"1=a v1"}, {"1=b v1"}}, []string{"1:running:b:v1"}},
		{"two of one name at start are shut", [][]string{{"1=a v1", "2=a v2"}}, []string{"1:shut:a", "2:shut:a"}},
		{"a second of the name is shut", [][]string{{"1=a v1"}, {"1=a v1", "2=a v2"}}, []string{"1:running:a:v1", "2:shut:a"}},
		{"a second of the name, sorted first", [][]string{{"2=a v1"}, {"1=a v2", "2=a v1"}}, []string{"1:shut:a", "2:running:a:v1"}},
		{"taking another's name keeps one's own", [][]string{{"1=a v1", "2=b v1"}, {"1=b v2", "2=b v1"}}, []string{"1:stale:a:v1", "2:running:b:v1"}},
		{"exchanged names", [][]string{{"1=a v1", "2=b v1"}, {"1=b v2", "2=a v2"}}, []string{"1:running:b:v2", "2:running:a:v2"}},
		{"a broken holder keeps its name", [][]string{{"1=a v1"}, {"1=x", "2=a v2"}}, []string{"1:stale:a:v1", "2:shut:a"}},
		{"a chain of names that collide is shut", [][]string{{"1=a v1", "2=b v1"}, {"1=b v2", "2=c v2", "3=c v3"}}, []string{"1:shut:b", "2:shut:b", "3:shut:c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b Book[string]
			for _, s := range c.steps {
				b.Update(found(s...), load)
			}
			if got := describe(&b); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			for _, e := range b.Entries() {
				if (e.Err == nil) != (e.State == Running) {
					t.Errorf("%s is %s with error %v", e.File, e.State, e.Err)
				}
			}
		})
	}
}

func TestUnsettled(t *testing.T) {
	var b Book[string]
	b.Update(found("1=a v1"), load)
	if b.Unsettled() {
		t.Error("unsettled with nothing wrong")
	}
	b.Update(found("1=a v1", "2!"), load)
	if !b.Unsettled() {
		t.Error("settled with an unreadable file")
	}
}

// FuzzUpdate plays any sequence of changes: never may a value be in force that no accepted text of that very file gave,
// nor two for one bottle, nor anything for a file that is blank or gone.
func FuzzUpdate(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8})
	texts := []string{"", "a v1", "a v2", "b v1", "b bad", "nonsense", "c v1"}
	f.Fuzz(func(t *testing.T, steps []byte) {
		var b Book[string]
		accepted := map[string]map[string]bool{"1": {}, "2": {}, "3": {}}
		for len(steps) >= 3 {
			var files []File
			blank := map[string]bool{"1": true, "2": true, "3": true}
			for i, path := range []string{"1", "2", "3"} {
				n := int(steps[i]) % (len(texts) + 2)
				switch {
				case n < len(texts):
					files = append(files, File{Path: path, Text: []byte(texts[n])})
					blank[path] = texts[n] == ""
					if name, v, err := load(files[len(files)-1]); err == nil {
						accepted[path][name+v] = true
					}
				case n == len(texts):
					files = append(files, File{Path: path, Err: errors.New("unreadable")})
					blank[path] = false
				}
			}
			steps = steps[3:]
			b.Update(files, load)
			seen := map[string]bool{}
			for _, e := range b.Entries() {
				if e.State == Shut {
					continue
				}
				if blank[e.File] || seen[e.Bottle] || !accepted[e.File][e.Bottle+e.Value] {
					t.Fatalf("in force: %+v", e)
				}
				seen[e.Bottle] = true
			}
		}
	})
}

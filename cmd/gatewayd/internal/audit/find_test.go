package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFind(t *testing.T) {
	path := file(t, `{"id":"r-1","n":1}
{"id":"r-12","flow":"f-1"}
{"id":"f-1"}
{"id":"r-1","n":2}
{"id":"r-3"`)
	for id, want := range map[string]string{"r-1": `{"id":"r-1","n":2}`, "r-12": `{"id":"r-12","flow":"f-1"}`, "f-1": `{"id":"f-1"}`, "r-3": "", "r-": ""} {
		if got, err := Find(path, id); err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v", id, got, err)
		}
	}
	if _, err := Find(path+".none", "r-1"); err == nil {
		t.Error("found in a file that is not there")
	}
}

func TestTail(t *testing.T) {
	path := file(t, "1\n2\n3\n4\n")
	for n, want := range map[int]string{0: "", 1: "4", 3: "2 3 4", 9: "1 2 3 4"} {
		lines, err := Tail(path, n)
		var got []string
		for _, l := range lines {
			got = append(got, string(l))
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%d: got %v, %v", n, got, err)
		}
	}
}

func TestEachPassesOverWhatIsTooLong(t *testing.T) {
	path := file(t, "one\n"+strings.Repeat("x", 3*maxLine)+"\ntwo\nunfinished")
	var got []string
	if err := Each(path, func(b []byte) { got = append(got, string(b)) }); err != nil || fmt.Sprint(got) != "[one two]" {
		t.Errorf("got %v, %v", got, err)
	}
}

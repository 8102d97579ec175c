package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Outcomes of a test, as test2json names them.
const (
	passed  = "pass"
	failed  = "fail"
	skipped = "skip"
)

// Test is what became of one test, its subtests included.
type Test struct {
	Name    string
	Outcome string
	Seconds float64
	// Reason is why it was skipped, or the end of what a test that failed said.
	Reason string
	// Attributes are what it reported of itself (testing.T.Attr).
	Attributes map[string]string
}

// event is one line of test2json (go doc cmd/test2json).
type event struct {
	Action, Test, Output, Key, Value string
	Elapsed                          float64
}

// mostSaid bounds what is kept of one test's output.
const mostSaid = 16 << 10

// bounded takes the middle out of a text that is too long: what a test found comes before the state that it shows at its end.
func bounded(text string) string {
	if len(text) <= mostSaid {
		return text
	}
	return text[:mostSaid/2] + "\n[...]\n" + text[len(text)-mostSaid/2:]
}

// readResults reads test2json's output to its end and returns the tests of the top level, and the subtests that were
// skipped, in the order in which they ended. A test that began and never ended has failed.
func readResults(in io.Reader) ([]Test, error) {
	var tests []Test
	said, running, attributes := map[string]string{}, map[string]bool{}, map[string]map[string]string{}
	lines := json.NewDecoder(bufio.NewReader(in))
	for {
		var e event
		if err := lines.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return tests, fmt.Errorf("read results: %w", err)
		}
		name, _, sub := strings.Cut(e.Test, "/")
		if name == "" {
			continue
		}
		switch e.Action {
		case "output":
			said[name] = bounded(said[name] + e.Output)
			if sub {
				said[e.Test] += e.Output
			}
		case "attr":
			if attributes[name] == nil {
				attributes[name] = map[string]string{}
			}
			attributes[name][e.Key] = e.Value
		case "run":
			running[name] = true
		case passed, failed, skipped:
			if sub && e.Action != skipped {
				delete(said, e.Test)
				continue
			}
			t := Test{Name: e.Test, Outcome: e.Action, Seconds: e.Elapsed, Attributes: attributes[name]}
			if t.Outcome != passed {
				t.Reason = reason(said[e.Test], t.Outcome)
			}
			tests = append(tests, t)
			delete(said, e.Test)
			if !sub {
				delete(running, name)
			}
		}
	}
	for name := range running {
		tests = append(tests, Test{Name: name, Outcome: failed, Reason: "did not end: " + reason(said[name], failed)})
	}
	return tests, nil
}

// position is where a line was logged from.
var position = regexp.MustCompile(`^\s*[\w.-]+\.go:\d+: `)

// reason is the line that says why a test was skipped, or all that a failed one said.
func reason(text, outcome string) string {
	if outcome == failed {
		return strings.TrimSpace(text)
	}
	why := ""
	for line := range strings.Lines(text) {
		if at := position.FindString(line); at != "" {
			why = strings.TrimPrefix(strings.TrimSpace(line[len(at):]), "skipped: ")
		}
	}
	return why
}

package main

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// stream is what a test's binary prints with -test.v=test2json, where the converter's mark is the byte 0x16.
const stream = "\x16=== RUN   TestGood\n" +
	"\x16=== ATTR  TestGood prog.verified 513\n" +
	"\x16=== RUN   TestGood/old\n" +
	"    good_test.go:7: skipped: tcx is missing (Linux 6.6)\n" +
	"\x16--- SKIP: TestGood/old (0.00s)\n" +
	"\x16=== NAME  TestGood\n" +
	"\x16--- PASS: TestGood (0.25s)\n" +
	"\x16=== RUN   TestBad\n" +
	"    bad_test.go:9: got 1, want 2\n" +
	"\x16--- FAIL: TestBad (0.50s)\n" +
	"\x16=== RUN   TestPlain\n" +
	"    plain_test.go:9: first\n" +
	"    plain_test.go:10: skipped: program nft is missing\n" +
	"\x16--- SKIP: TestPlain (0.00s)\n" +
	"\x16=== RUN   TestCrash\n" +
	"panic: oh\n"

func TestResults(t *testing.T) {
	tests, err := convert(t.Context(), strings.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	want := []struct{ name, outcome, reason string }{
		{"TestGood/old", skipped, "^tcx is missing"}, {"TestGood", passed, "^$"}, {"TestBad", failed, "got 1, want 2"},
		{"TestPlain", skipped, "^program nft is missing$"}, {"TestCrash", failed, "panic: oh"},
	}
	if len(tests) != len(want) {
		t.Fatalf("%d tests: %+v", len(tests), tests)
	}
	for i, w := range want {
		if got := tests[i]; got.Name != w.name || got.Outcome != w.outcome || !regexp.MustCompile(w.reason).MatchString(got.Reason) {
			t.Errorf("%+v, want %+v", got, w)
		}
	}
	if got := tests[1]; got.Attributes["prog.verified"] != "513" || got.Seconds != 0.25 {
		t.Errorf("%+v", got)
	}
	if _, err := readResults(strings.NewReader("{]")); err == nil {
		t.Error("a broken stream was read")
	}
}

// TestBounded: what a test said first and last is kept, however often more comes.
func TestBounded(t *testing.T) {
	said := ""
	for i := range 10_000 {
		said = bounded(said + fmt.Sprintf("line %d\n", i))
	}
	if len(said) > mostSaid+16 || !strings.HasPrefix(said, "line 0\nline 1\n") || !strings.HasSuffix(said, "\nline 9999\n") || strings.Count(said, "[...]") != 1 {
		t.Errorf("%d bytes: %.20q ... %q", len(said), said, said[len(said)-20:])
	}
}

func TestFollower(t *testing.T) {
	var said []string
	f := &follower{name: "6.1", say: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }}
	for i := range stream {
		if n, err := f.Write([]byte(stream[i : i+1])); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if want := []string{"6.1   PASS: TestGood (0.25s)", "6.1   FAIL: TestBad (0.50s)", "6.1   SKIP: TestPlain (0.00s)"}; !slices.Equal(said, want) {
		t.Errorf("%q", said)
	}
}

func TestReport(t *testing.T) {
	r := Report{Suites: []Suite{{Name: "e2e", Why: "they are slow", LeftOut: []string{"TestV", "TestW"}}}, Kernels: []Kernel{{Name: "6.1", Release: "6.1.0-9", How: "microvm under tcg", Packages: []Package{
		{Name: "gateway/redirect", Mark: Mark{"2026-01-02 03:04", "abc"}, Seconds: 61.4, Tests: []Test{
			{Name: programsTest, Outcome: passed, Attributes: map[string]string{"prog.verified": "513", "prog.stack": "72+8"}},
			{Name: "TestX", Outcome: skipped, Reason: "no nft"}, {Name: "TestY", Outcome: skipped, Reason: "no nft"},
		}},
	}}}}
	text := r.markdown()
	for _, want := range []string{
		"| 6.1.0-9 | microvm under tcg | 2026-01-02 03:04, abc | gateway/redirect | 1 | 0 | 2 | 61 |",
		"- 6.1.0-9, gateway/redirect: no nft: `TestX`, `TestY`\n",
		"- of e2e, since they are slow: TestV, TestW\n",
		"| `prog` | 6.1.0-9 | 513 |  |  | 72+8 |\n",
		"\n- 6.1: programs, fastpath, gateway, lab, e2e, the comparison of forwarding\n- 6.12: programs, fastpath, gateway/redirect, gateway, lab, e2e, the comparison of forwarding\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the document does not have %q:\n%s", want, text)
		}
	}
	if err := r.failure(); err != nil {
		t.Error(err)
	}
	p := &r.Kernels[0].Packages[0]
	p.Tests = append(p.Tests, Test{Name: "TestZ", Outcome: failed})
	if err := r.failure(); err == nil || !strings.Contains(err.Error(), "TestZ of gateway/redirect failed on Linux 6.1.0-9") {
		t.Errorf("a failed test: %v", err)
	}
	p.Tests = p.Tests[1:3]
	if err := r.failure(); err == nil || !strings.Contains(err.Error(), "no test of gateway/redirect passed") {
		t.Errorf("nothing passed: %v", err)
	}
}

// What a kernel lacks is left out there and nowhere else, and -run is for the tests of all packages.
func TestArguments(t *testing.T) {
	s := suite{pkg: "x", only: "^TestB$"}
	old := machine{name: "6.1", dir: "bookworm", lacks: map[string]map[string]string{"x": {"/^tcx$": "too old"}}}
	if got := s.arguments(&options{}, old); !slices.Contains(got, "-test.skip=/^tcx$") || !slices.Contains(got, "-test.run=^TestB$") {
		t.Errorf("%q", got)
	}
	old.lacks["x"]["^TestD$"] = "too old"
	if got := (suite{pkg: "x", not: "^TestC"}).arguments(&options{}, old); !slices.Contains(got, "-test.skip=^TestD$|^TestC|/^tcx$") {
		t.Errorf("%q", got)
	}
	got := s.arguments(&options{tests: "^TestA$"}, machine{name: "host"})
	if !slices.Contains(got, "-test.run=^TestA$") || slices.ContainsFunc(got, func(a string) bool { return strings.HasPrefix(a, "-test.skip") }) {
		t.Errorf("%q", got)
	}
}

// A run of some packages keeps what others found on the same release.
func TestResultsAreKept(t *testing.T) {
	o := &options{cache: t.TempDir()}
	if k, err := o.earlier("6.1"); k != nil || err != nil {
		t.Errorf("%+v, %v", k, err)
	}
	found := func(release string, seconds float64, packages ...string) *Kernel {
		k := &Kernel{Name: "6.1", Release: release}
		for _, p := range packages {
			k.Packages = append(k.Packages, Package{Name: p, Seconds: seconds})
		}
		return k
	}
	first := found("6.1.0-9", 1, "gateway/redirect", "e2e")
	first.Loads = []Load{{Name: "rr"}}
	for _, c := range []struct {
		k    *Kernel
		want string
	}{
		{first, "gateway/redirect 1, e2e 1, 1 loads"},
		{found("6.1.0-9", 2, "e2e"), "gateway/redirect 1, e2e 2, 1 loads"},
		{found("6.1.0-9", 3, "lab"), "gateway/redirect 1, lab 3, e2e 2, 1 loads"},
		{found("6.1.0-10", 4, "lab"), "lab 4, 0 loads"},
	} {
		if err := o.save(c.k); err != nil {
			t.Fatal(err)
		}
		k, err := o.earlier("6.1")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range k.Packages {
			got = append(got, fmt.Sprint(p.Name, " ", p.Seconds))
		}
		if text := strings.Join(append(got, fmt.Sprint(len(k.Loads), " loads")), ", "); text != c.want {
			t.Errorf("%s, want %s", text, c.want)
		}
	}
}

// What was not measured wins nothing.
func TestForwarding(t *testing.T) {
	measured := func(lane, plain float64) Load {
		return Load{Title: "x", Unit: "µs", LessIsBetter: true, Rows: []Row{
			{Path: "gatewayd", Value: lane}, {Path: "kernel", Value: plain, Gatewayd: 2}, {Path: "flowtable", Absent: "too old"}}}
	}
	r := Report{Kernels: []Kernel{{Release: "6.1.0-9", Measured: Mark{"2026-01-02 03:04", "abc"}, Loads: []Load{measured(5, 10), measured(0, 10), measured(0, 0)}}}}
	const row = "| 6.1.0-9 | 2026-01-02 03:04, abc | x | "
	for _, want := range []string{
		row + "5 µs | 10 µs | absent: too old | 2.00× |  | gatewayd's fast path |\n",
		row + "– | 10 µs | absent: too old | 2.00× |  | masquerading |\n",
		row + "– | – | absent: too old | 2.00× |  | – |\n",
	} {
		if text := r.markdown(); !strings.Contains(text, want) {
			t.Errorf("the document does not have %q:\n%s", want, text)
		}
	}
}

func TestWrongArguments(t *testing.T) {
	for _, args := range [][]string{{"more"}, {"-only", "5.4"}, {"-packages", "gateway/dns"}, {"-run", "x", "-document", "x"}} {
		var out, errOut bytes.Buffer
		if code := run(args, &out, &errOut); code != 2 || errOut.Len() == 0 {
			t.Errorf("%q: exit code %d, %q", args, code, errOut.String())
		}
	}
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gatewayd/lab/privileged"
)

// block is a fenced block of the README that a marker in front of it names.
type block struct {
	marker string // "file: NAME" or "run: user" or "run: root"
	text   string
}

func readmeBlocks(t *testing.T) []block {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	for _, m := range regexp.MustCompile("(?s)<!-- ((?:file|run): [^ ]+) -->\n```[a-z]+\n(.*?)```\n").FindAllStringSubmatch(string(text), -1) {
		out = append(out, block{m[1], m[2]})
	}
	return out
}

// step is one command of a block with what it is to print.
type step struct{ command, output string }

func steps(b block) (out []step) {
	for line := range strings.Lines(b.text) {
		if c, ok := strings.CutPrefix(line, "$ "); ok {
			out = append(out, step{command: strings.TrimSpace(c)})
			continue
		}
		out[len(out)-1].output += line
	}
	return out
}

// matches compares an output with the README's, in which "…" within a line stands for anything in that line, and alone on
// a line for any number of lines.
func matches(want, got string) bool {
	var re strings.Builder
	re.WriteString("^")
	for line := range strings.Lines(want) {
		if strings.TrimSpace(line) == "…" {
			re.WriteString("(?:.*\n)*")
			continue
		}
		for i, part := range strings.Split(strings.TrimRight(line, "\n"), "…") {
			if i > 0 {
				re.WriteString("[^\n]*")
			}
			re.WriteString(regexp.QuoteMeta(part))
		}
		re.WriteString("\n")
	}
	re.WriteString("$")
	if got != "" && !strings.HasSuffix(got, "\n") {
		got += "\n"
	}
	return regexp.MustCompile(re.String()).MatchString(got)
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		want, got string
		ok        bool
	}{
		{"a…c\n", "abc", true}, {"a…c\n", "ab\nc", false}, {"a\n…\nz\n", "a\nb\nc\nz\n", true}, {"a\n…\nz\n", "a\nz\n", true},
		{"a\n", "a\nb\n", false}, {"…\n", "", true}, {"a.c\n", "abc\n", false},
	} {
		if matches(c.want, c.got) != c.ok {
			t.Errorf("%q and %q: %v", c.want, c.got, !c.ok)
		}
	}
}

// writeFiles writes the README's files into dir.
func writeFiles(t *testing.T, dir string) {
	t.Helper()
	for _, b := range readmeBlocks(t) {
		if name, ok := strings.CutPrefix(b.marker, "file: "); ok {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(b.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The commands of the README that need no root print what it says.
func TestReadmeCommands(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir)
	ran := 0
	for _, b := range readmeBlocks(t) {
		if b.marker != "run: user" {
			continue
		}
		for _, s := range steps(b) {
			cmd := exec.Command("sh", "-c", s.command)
			cmd.Dir = dir
			out, _ := cmd.CombinedOutput() // explain ends with 5 where the README shows a denial
			if !matches(s.output, string(out)) {
				t.Errorf("$ %s\n%s\nREADME says\n%s", s.command, out, s.output)
			}
			ran++
		}
	}
	if ran < 2 {
		t.Errorf("only %d commands of the README ran", ran)
	}
}

// The session of the README that needs root runs in a network namespace of its own and prints what it says.
func TestReadmeSession(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.BPF, privileged.Program("ip", "nsenter", "curl"))
	s := newSession(t)
	for _, b := range readmeBlocks(t) {
		if b.marker == "run: root" {
			for _, st := range steps(b) {
				s.do(st)
			}
		}
	}
	if s.ran < 4 || s.daemon == nil {
		t.Errorf("only %d commands of the README ran, daemon %v", s.ran, s.daemon)
	}
}

// session runs commands in a network namespace with directories of its own.
type session struct {
	t          *testing.T
	netns, dir string
	flags      string
	replace    *strings.Replacer
	daemon     *exec.Cmd
	log        bytes.Buffer
	ran        int
}

func newSession(t *testing.T) *session {
	t.Helper()
	name := fmt.Sprintf("readme-%d", os.Getpid())
	s := &session{t: t, netns: "/run/netns/" + name, dir: t.TempDir()}
	// What the README leaves at its defaults must not be this machine's own.
	s.flags = fmt.Sprintf(" --run-dir %s/run --bpffs-dir /sys/fs/bpf/%s --dns-upstreams 192.0.2.53 --metrics-listen ''", s.dir, name)
	s.replace = strings.NewReplacer("/run/netns/dev", s.netns+"-dev", "GITHUB_TOKEN=…", "GITHUB_TOKEN=secret", "sudo ", "")
	s.sh("ip netns add "+name, true)
	s.sh("ip -n "+name+" link set lo up", true)
	t.Cleanup(s.end)
	writeFiles(t, s.dir)
	manifest := filepath.Join(s.dir, "dev.bottle.yaml")
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(manifest, []byte(s.replace.Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// sh runs a command in the machine's own namespace.
func (s *session) sh(command string, must bool) string {
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir = s.dir
	out, err := cmd.CombinedOutput()
	if err != nil && must {
		s.t.Fatalf("$ %s\n%s%v", command, out, err)
	}
	return string(out)
}

// inside makes a command of the README into one that runs in the session's namespace and directories.
func (s *session) inside(command string) string {
	command = s.replace.Replace(command)
	command = regexp.MustCompile(`gatewayd [a-z]+`).ReplaceAllString(command, "$0"+s.flags)
	return "exec nsenter --net=" + s.netns + " sh -c '" + strings.ReplaceAll(command, "'", `'\''`) + "'"
}

func (s *session) do(st step) {
	s.t.Helper()
	s.ran++
	if command, background := strings.CutSuffix(st.command, " &"); background {
		s.start(command)
		return
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		out := s.sh(s.inside(st.command), false)
		if matches(st.output, out) {
			return
		}
		if time.Now().After(deadline) || !strings.HasPrefix(st.command, "gatewayd log") {
			s.t.Errorf("$ %s\n%s\nREADME says\n%s\nlog:\n%s", st.command, out, st.output, s.log.String())
			return
		}
		time.Sleep(100 * time.Millisecond) // a record is written when its flow has ended: asked again until then
	}
}

// start starts the daemon and waits until it says that it is ready.
func (s *session) start(command string) {
	s.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	s.daemon = exec.Command("sh", "-c", s.inside("exec env "+command))
	s.daemon.Dir, s.daemon.Stdout, s.daemon.Stderr = s.dir, w, w
	if err := s.daemon.Start(); err != nil {
		s.t.Fatal(err)
	}
	w.Close()
	ready := make(chan bool, 1)
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := r.Read(b)
			s.log.Write(b[:n])
			if strings.Contains(s.log.String(), "msg=ready") {
				ready <- true
				return
			}
			if err != nil {
				ready <- false
				return
			}
		}
	}()
	select {
	case ok := <-ready:
		if !ok {
			s.t.Fatalf("$ %s\n%s", command, s.log.String())
		}
	case <-time.After(30 * time.Second):
		s.t.Fatalf("$ %s is not ready after 30 s", command)
	}
}

// end stops the daemon, uninstalls, and looks that nothing is left.
func (s *session) end() {
	if s.daemon != nil {
		_ = s.daemon.Process.Signal(os.Interrupt) // it may have ended
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		stop := context.AfterFunc(ctx, func() { _ = s.daemon.Process.Kill() })
		_ = s.daemon.Wait()
		stop()
	}
	s.sh(s.inside("gatewayd uninstall"), true)
	s.sh("ip netns del "+filepath.Base(s.netns), true)
	for _, path := range []string{s.netns, s.netns + "-dev", "/sys/fs/bpf/" + filepath.Base(s.netns)} {
		if _, err := os.Lstat(path); err == nil {
			s.t.Errorf("%s is left behind", path)
		}
	}
}

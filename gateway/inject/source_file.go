package inject

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// youngFile is the age up to which a file may have changed again without
	// its modification time showing it: several ticks of the kernel's clock.
	youngFile = time.Second
	// rewriteGrace is how long after a change a file that cannot be read is
	// taken to be half written, so that the last good value still counts.
	rewriteGrace = 2 * time.Second
)

// file reads one file and remembers what it held. It belongs to any number of
// goroutines.
type file struct {
	path  string
	parse func([]byte) (string, error)

	mu    sync.Mutex
	state fileState
	read  time.Time // when state was taken
	value string
	good  bool // value was read and parsed
}

// fileState is what tells that a file is as it was.
type fileState struct {
	dev, ino uint64
	size     int64
	modified time.Time
}

func stateOf(info os.FileInfo) fileState {
	s := fileState{size: info.Size(), modified: info.ModTime()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.dev, s.ino = sys.Dev, sys.Ino
	}
	return s
}

func (f *file) fetch(context.Context) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err != nil {
		f.good = false
		return "", cause(err)
	}
	if f.good && stateOf(info) == f.state && f.read.Sub(f.state.modified) > youngFile {
		return f.value, nil
	}
	now := time.Now()
	value, state, err := f.load()
	if err == nil && trimLine(value) == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		if f.good && now.Sub(info.ModTime()) < rewriteGrace {
			return f.value, nil
		}
		f.good = false
		return "", err
	}
	f.value, f.state, f.read, f.good = value, state, now, true
	return value, nil
}

// load reads and parses the file. The state is that of the very file that was
// read, so a file put in its place meanwhile is noticed next time.
func (f *file) load() (string, fileState, error) {
	// Without O_NONBLOCK a named pipe would block until somebody writes.
	fd, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", fileState{}, cause(err)
	}
	defer fd.Close()
	info, err := fd.Stat()
	if err != nil {
		return "", fileState{}, cause(err)
	}
	if !info.Mode().IsRegular() {
		return "", fileState{}, errors.New("it is no regular file")
	}
	b, err := io.ReadAll(io.LimitReader(fd, maxSecret+1))
	if err != nil {
		return "", fileState{}, cause(err)
	}
	if len(b) > maxSecret {
		return "", fileState{}, errors.New("it is longer than 64 KB")
	}
	value, err := f.parse(b)
	return value, stateOf(info), err
}

// cause drops the operation and path from an error of os: the reference,
// which is named beside it, has them.
func cause(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// pointer is an RFC 6901 JSON pointer, cut into its reference tokens.
type pointer []string

func parsePointer(s string) (pointer, error) {
	if s == "" || s[0] != '/' {
		return nil, fmt.Errorf("JSON pointer %q does not begin with a slash", s)
	}
	parts := strings.Split(s[1:], "/")
	for i, p := range parts {
		rest := strings.NewReplacer("~0", "", "~1", "").Replace(p)
		if strings.Contains(rest, "~") {
			return nil, fmt.Errorf("JSON pointer %q has a ~ that is neither ~0 nor ~1", s)
		}
		parts[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(p) // RFC 6901 section 4
	}
	return parts, nil
}

// find returns the string that the pointer names in a JSON document. Errors
// hold the pointer's own tokens, and nothing of the document.
func (p pointer) find(doc []byte) (string, error) {
	var at any
	if err := json.Unmarshal(doc, &at); err != nil {
		return "", errors.New("it is no valid JSON document")
	}
	for _, token := range p {
		switch v := at.(type) {
		case map[string]any:
			next, ok := v[token]
			if !ok {
				return "", fmt.Errorf("there is no member %q", token)
			}
			at = next
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(v) || strconv.Itoa(i) != token {
				return "", fmt.Errorf("there is no element %q", token)
			}
			at = v[i]
		default:
			return "", fmt.Errorf("%q is looked for inside a value that has no members", token)
		}
	}
	s, ok := at.(string)
	if !ok {
		return "", errors.New("the value is no string")
	}
	return s, nil
}

package initramfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// maxLinks is how many links Linux follows (path_resolution(7)).
const maxLinks = 40

// layout puts entries where their paths lead: through the symbolic links of entries that are there already.
type layout struct {
	entries []Entry
	at      map[string]int // index by path
}

func newLayout() *layout { return &layout{at: map[string]int{}} }

// addAll adds entries, in place of those that are there. A directory stays what it is, and so does a link to one.
func (l *layout) addAll(entries []Entry) error {
	for _, e := range entries {
		if err := l.add(e); err != nil {
			return err
		}
	}
	return nil
}

func (l *layout) add(e Entry) error {
	where, err := l.resolve(e.Path)
	if err != nil {
		return err
	}
	e.Path = where
	i, there := l.at[where]
	switch {
	case !there:
		l.at[where] = len(l.entries)
		l.entries = append(l.entries, e)
	case e.Mode.IsDir() && l.entries[i].Mode&fs.ModeSymlink != 0:
	case l.entries[i].Mode.IsDir() != e.Mode.IsDir():
		return fmt.Errorf("%s is both a directory and something else", where)
	default:
		l.entries[i] = e
	}
	return nil
}

// addMissing adds the entries at whose path there is nothing.
func (l *layout) addMissing(entries []Entry) error {
	for _, e := range entries {
		where, err := l.resolve(e.Path)
		if err != nil {
			return err
		}
		if _, there := l.at[where]; there {
			continue
		}
		if err := l.add(e); err != nil {
			return err
		}
	}
	return nil
}

// addInit adds the init, which nothing may replace: the host takes its word for how a command ended.
func (l *layout) addInit(e Entry) error {
	if _, there := l.at[e.Path]; there {
		return fmt.Errorf("a payload lies at /%s, where the init is", e.Path)
	}
	return l.add(e)
}

// errLinks says that a payload's links lead nowhere.
var errLinks = errors.New("too many symbolic links")

// resolve follows the links on the way to a path, but not one at its end.
func (l *layout) resolve(name string) (string, error) {
	todo := strings.Split(name, "/")
	var done []string
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = done[:max(0, len(done)-1)]
			continue
		}
		done = append(done, part)
		i, there := l.at[strings.Join(done, "/")]
		if !there || len(todo) == 0 || l.entries[i].Mode&fs.ModeSymlink == 0 {
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: %w", name, errLinks)
		}
		target := string(l.entries[i].Data)
		done = done[:len(done)-1]
		if path.IsAbs(target) {
			done = nil
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return strings.Join(done, "/"), nil
}

package manifests

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// quiet is how long nothing must have happened before files are looked at: an editor's write, rename and chmod are one
	// change.
	quiet = 200 * time.Millisecond
	// patience bounds how long a stream of changes can put off a look.
	patience = 2 * time.Second
	// Rescan is how often everything is looked at although nothing was reported: events can be lost (inotify(7), queue
	// overflow), and directories can be made after the daemon.
	Rescan = 30 * time.Second
	// Retry replaces Rescan while a manifest is not in force as it stands.
	Retry = 2 * time.Second
)

// Watcher calls for a look at the manifests when something changed in one of its directories.
type Watcher struct {
	log *slog.Logger
	fs  *fsnotify.Watcher

	mu    sync.Mutex
	dirs  map[string]bool // wanted, and whether inotify has it
	files map[string]bool // outside the manifests' directory
	poll  time.Duration
	kick  chan struct{}
}

// NewWatcher makes a watcher with no directories. Close it.
func NewWatcher(log *slog.Logger) (*Watcher, error) {
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch files: %w", err)
	}
	return &Watcher{log: log, fs: fs, dirs: map[string]bool{}, poll: Rescan, kick: make(chan struct{}, 1)}, nil
}

// Close ends the watching. Run returns.
func (w *Watcher) Close() error { return w.fs.Close() }

// Set says what to watch: dir, and the directories of files, since a file that is replaced by a rename is another file. A
// directory that does not exist is tried again by and by. unsettled shortens the time between looks.
func (w *Watcher) Set(dir string, files []string, unsettled bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	want := []string{filepath.Clean(dir)}
	w.files = map[string]bool{}
	for _, f := range files {
		want = append(want, filepath.Dir(f))
		w.files[filepath.Clean(f)] = true
	}
	for d := range w.dirs {
		if !slices.Contains(want, d) {
			delete(w.dirs, d)
			_ = w.fs.Remove(d) // not watched any more is what is wanted
		}
	}
	for _, d := range want {
		if _, ok := w.dirs[d]; !ok {
			w.dirs[d] = false
		}
	}
	w.poll = Rescan
	if unsettled {
		w.poll = Retry
	}
	w.arm()
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// arm asks inotify for every directory again. Asking twice for the same one changes nothing, and asking again for one that
// was deleted and made anew is the only way to see into it.
func (w *Watcher) arm() {
	for d, had := range w.dirs {
		err := w.fs.Add(d)
		if err != nil && had {
			w.log.Warn("directory can no longer be watched; it is looked at every "+w.poll.String(), "dir", d, "err", err)
		}
		w.dirs[d] = err == nil
	}
}

// Run calls look after changes have come to rest, and every so often anyway, until ctx ends or the watcher is closed. It
// never calls look twice at once.
func (w *Watcher) Run(ctx context.Context, look func()) {
	timer := time.NewTimer(w.interval())
	defer timer.Stop()
	var first time.Time // of the changes not yet looked at
	for {
		select {
		case <-ctx.Done():
			return
		case ev, ok := <-w.fs.Events:
			if !ok {
				return
			}
			if !w.concerns(ev.Name) {
				continue
			}
			now := time.Now()
			if first.IsZero() {
				first = now
			}
			timer.Reset(min(quiet, max(0, patience-now.Sub(first))))
		case err, ok := <-w.fs.Errors:
			if !ok {
				return
			}
			w.log.Warn("watching files lost events; looking at all of them", "err", err)
			timer.Reset(quiet)
		case <-w.kick:
			if first.IsZero() {
				timer.Reset(w.interval())
			}
		case <-timer.C:
			first = time.Time{}
			w.mu.Lock()
			w.arm()
			w.mu.Unlock()
			look()
			timer.Reset(w.interval())
		}
	}
}

// concerns tells whether a change of path matters: directories of credentials also hold files that change all the time.
func (w *Watcher) concerns(path string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, dir := w.dirs[path]
	return dir || w.files[path] || strings.HasSuffix(path, Suffix)
}

func (w *Watcher) interval() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.poll
}

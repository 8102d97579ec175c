// Package audit writes the gateway's records to a file, one JSON object a line, without ever holding up the traffic that
// they are about.
package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gatewayd/gateway"
)

const (
	// queueSize is how many records may wait for the disk.
	queueSize = 8192
	// readyRoom is how much of the queue must be free for Ready to say yes: the flows that were let in under an earlier yes
	// still have records to write.
	readyRoom = queueSize / 4
	// retryAfter is the pause after a failed write.
	retryAfter = time.Second
)

// Log is an audit file. It implements gateway.ReadyRecorder; all methods may be called by many goroutines at once.
type Log struct {
	path string
	log  *slog.Logger
	open func(path string) (io.WriteCloser, error)

	queue   chan gateway.Record
	reopen  chan struct{}
	closing chan struct{}
	once    sync.Once
	done    chan struct{}

	failing atomic.Bool
	written atomic.Uint64
	dropped atomic.Uint64
}

// Open opens or makes the file at path, mode 0600, and appends to it. Close the Log. The error is that of the file.
func Open(path string, log *slog.Logger) (*Log, error) {
	return open(path, log, func(path string) (io.WriteCloser, error) {
		return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	})
}

func open(path string, log *slog.Logger, opener func(string) (io.WriteCloser, error)) (*Log, error) {
	f, err := opener(path)
	if err != nil {
		return nil, fmt.Errorf("open audit file: %w", err)
	}
	l := &Log{
		path: path, log: log, open: opener,
		queue: make(chan gateway.Record, queueSize), reopen: make(chan struct{}, 1),
		closing: make(chan struct{}), done: make(chan struct{}),
	}
	go l.run(f)
	return l, nil
}

// Record queues r. It does not block: with a full queue r is dropped and counted.
func (l *Log) Record(r gateway.Record) {
	select {
	case <-l.closing:
		l.dropped.Add(1)
		return
	default:
	}
	select {
	case l.queue <- r:
	default:
		l.dropped.Add(1)
	}
}

// Ready tells whether the file takes records: the last write succeeded and the queue has room to spare.
func (l *Log) Ready() bool { return !l.failing.Load() && len(l.queue) <= queueSize-readyRoom }

// Written and Dropped count records.
func (l *Log) Written() uint64 { return l.written.Load() }

// Dropped counts records that were lost because the queue was full.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

// Reopen makes the next record go to a new file at the same path, as after a rotation. It does not block.
func (l *Log) Reopen() {
	select {
	case l.reopen <- struct{}{}:
	default:
	}
}

// Close writes what is queued, as long as ctx lasts, and closes the file. Records that come later are dropped.
func (l *Log) Close(ctx context.Context) error {
	l.once.Do(func() { close(l.closing) })
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close audit file: %d records were not written: %w", len(l.queue), ctx.Err())
	}
}

// run owns the file.
func (l *Log) run(f io.WriteCloser) {
	defer close(l.done)
	w := &writer{l: l, f: f}
	defer w.close()
	for {
		select {
		case <-l.reopen:
			w.close()
		case r := <-l.queue:
			if !w.write(r) {
				return
			}
		case <-l.closing:
			for {
				select {
				case r := <-l.queue:
					if !w.write(r) {
						return
					}
				default:
					return
				}
			}
		}
	}
}

// writer writes lines, again and again until each is written.
type writer struct {
	l      *Log
	f      io.WriteCloser // nil when it must be opened
	broken bool           // the file's last line has no end
}

// write returns false when the log was closed before r could be written.
func (w *writer) write(r gateway.Record) bool {
	line, err := json.Marshal(r)
	if err != nil {
		w.l.dropped.Add(1)
		w.l.log.Error("record cannot be written as JSON", "id", r.ID, "err", err)
		return true
	}
	line = append(line, '\n')
	for {
		err := w.try(line)
		if err == nil {
			w.l.written.Add(1)
			if w.l.failing.Swap(false) {
				w.l.log.Info("audit file is written again", "file", w.l.path)
			}
			return true
		}
		if !w.l.failing.Swap(true) {
			w.l.log.Error("audit file cannot be written; trying again every "+retryAfter.String(), "file", w.l.path, "err", err)
		}
		select {
		case <-w.l.closing:
			w.l.dropped.Add(1 + uint64(len(w.l.queue)))
			return false
		case <-time.After(retryAfter):
		}
	}
}

func (w *writer) try(line []byte) error {
	if w.f == nil {
		f, err := w.l.open(w.l.path)
		if err != nil {
			return err
		}
		w.f = f
	}
	if w.broken {
		line = append([]byte{'\n'}, line...)
	}
	n, err := w.f.Write(line)
	if err != nil {
		w.broken = w.broken || n > 0
		w.close() // it may be gone, or its file system full: a new one is opened next time
		return err
	}
	w.broken = false
	return nil
}

func (w *writer) close() {
	if w.f != nil {
		w.f.Close()
		w.f = nil
	}
}

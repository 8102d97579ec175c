package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// auditMode keeps the records, which tell where a bottle's agent goes, to the user that runs the gateway.
const auditMode = 0o600

// auditQueue is how many records may wait for the file when no other number is given.
const auditQueue = 8192

const (
	auditLine  = 1 << 10     // bytes that most records have room in as a line
	auditRoom  = 64 << 10    // bytes of memory for lines that is kept when there are none
	auditRetry = time.Second // the pause after a write that failed
	// auditLinger is how long a record waits for others, so that they leave in one write.
	auditLinger = 5 * time.Millisecond
)

// FileRecorder appends records to a file, one JSON object per line. Writing is done by a goroutine of its own, which takes the
// lines that wait, a bounded number: Record never waits for a disk. What finds no room is dropped and counted. It is a
// [ReadyRecorder].
type FileRecorder struct {
	path  string
	log   *slog.Logger
	most  int             // records that may wait
	some  chan struct{}   // wakes the writer
	again chan chan error // requests to reopen
	quit  chan struct{}   // closed by Close
	done  chan struct{}   // closed when the writer has ended

	dropped atomic.Uint64
	written atomic.Uint64
	failing atomic.Bool // the last write failed

	mu     sync.Mutex
	lines  []byte // whole lines that the writer has not taken
	held   int    // records in lines
	idle   bool   // the writer waits for some
	closed bool
}

// OpenFileRecorder opens path for appending, making it with mode 0600 if it is not there. An existing file must be a
// regular one, and its mode is made 0600. queue is how many records may wait, 0 for a default. log, which may be nil,
// hears of failing writes. The caller must Close it.
func OpenFileRecorder(path string, queue int, log *slog.Logger) (*FileRecorder, error) {
	file, err := openAudit(path)
	if err != nil {
		return nil, err
	}
	r := newFileRecorder(path, queue, log)
	go r.run(file)
	return r, nil
}

// newFileRecorder returns a recorder whose writer is not running yet.
func newFileRecorder(path string, queue int, log *slog.Logger) *FileRecorder {
	if queue <= 0 {
		queue = auditQueue
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &FileRecorder{
		path: path, log: log, most: queue, idle: true,
		some:  make(chan struct{}, 1),
		again: make(chan chan error),
		quit:  make(chan struct{}),
		done:  make(chan struct{}),
	}
}

// openAudit opens or makes the file. It does not follow a symbolic link at path, and does not block on a FIFO.
func openAudit(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, auditMode)
	if err != nil {
		return nil, fmt.Errorf("open audit file: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err == nil && info.Mode().Perm() != auditMode {
		err = f.Chmod(auditMode)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open audit file: %w", err)
	}
	return f, nil
}

// Record puts rec among the lines that wait, or drops and counts it when there are too many or the recorder is closed. It does
// not block.
func (r *FileRecorder) Record(rec Record) {
	var room [auditLine]byte
	line := append(rec.appendJSON(room[:0]), '\n')
	r.mu.Lock()
	if r.closed || r.held >= r.most {
		r.mu.Unlock()
		r.dropped.Add(1)
		return
	}
	r.lines = append(r.lines, line...)
	r.held++
	wake := r.idle
	r.idle = false
	r.mu.Unlock()
	if !wake {
		return
	}
	select {
	case r.some <- struct{}{}:
	default: // the writer is to look anyway
	}
}

// Ready tells whether new flows can count on being recorded: the last write succeeded, and there is room for a quarter of the
// records that may wait, for what was let in before.
func (r *FileRecorder) Ready() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.closed && !r.failing.Load() && r.held <= r.most*3/4
}

// Dropped returns how many records were lost, for want of room or at Close.
func (r *FileRecorder) Dropped() uint64 { return r.dropped.Load() }

// Written returns how many records were handed to the kernel.
func (r *FileRecorder) Written() uint64 { return r.written.Load() }

// Reopen opens the path again, after whoever rotates logs has moved the file away, and closes the old one. On error the
// old file stays in use. It blocks until the writer has come to it.
func (r *FileRecorder) Reopen() error {
	reply := make(chan error, 1)
	select {
	case r.again <- reply:
		return <-reply
	case <-r.done:
		return errors.New("reopen audit file: it is closed")
	}
}

// Close writes what is queued, flushes and closes the file; it gives up waiting when ctx ends. Records that come later
// are dropped.
func (r *FileRecorder) Close(ctx context.Context) error {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.quit)
	}
	r.mu.Unlock()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close audit file: %w", ctx.Err())
	}
}

// run writes until Close. As long as there are records, it looks for them at intervals and nobody has to wake it.
func (r *FileRecorder) run(file *os.File) {
	w := &auditWriter{r: r, file: file}
	pause := time.NewTimer(auditLinger)
	defer pause.Stop()
	defer close(r.done)
	defer func() { w.file.Close() }()
	for {
		select {
		case <-r.some:
			pause.Reset(auditLinger)
		case <-pause.C:
			if w.drain() {
				pause.Reset(auditLinger)
			}
		case reply := <-r.again:
			reply <- w.reopen()
		case <-r.quit:
			w.drain()
			return
		}
	}
}

// take returns the lines that wait and their number, and gives room in exchange. Without any the writer is idle from now on.
func (r *FileRecorder) take(room []byte) (lines []byte, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines, n = r.lines, r.held
	if n == 0 && cap(lines) > auditRoom {
		lines = nil
	}
	if n == 0 && cap(room) > auditRoom {
		room = nil
	}
	r.lines, r.held, r.idle = room, 0, n == 0
	return lines, n
}

// auditWriter is the writer goroutine's side of a FileRecorder.
type auditWriter struct {
	r     *FileRecorder
	file  *os.File
	batch []byte // whole lines that are not written yet
	held  uint64 // records in batch
	torn  bool   // the file may end in the middle of a line
}

// drain writes what waits, and reports whether that was anything. The batch is empty, or that of a Close which gave up.
func (w *auditWriter) drain() bool {
	lines, n := w.r.take(w.batch[:0])
	w.batch, w.held = lines, uint64(n)
	w.flush()
	return n > 0
}

// flush hands the batch to the kernel. While that fails the recorder is not ready, and it is tried again every second:
// with the file as it is, or with one opened anew by Reopen. On Close it is tried once more and then given up.
func (w *auditWriter) flush() {
	for w.held > 0 {
		err := w.try()
		if err == nil {
			w.r.written.Add(w.held)
			w.batch, w.held = w.batch[:0], 0
			if w.r.failing.Swap(false) {
				w.r.log.Info("audit file is written again", slog.String("file", w.r.path))
			}
			return
		}
		if !w.r.failing.Swap(true) {
			w.r.log.Error("audit file cannot be written; it is tried again", slog.String("file", w.r.path), slog.Any("error", err))
		}
		select {
		case <-w.r.quit:
			w.r.dropped.Add(w.held)
			w.batch, w.held = nil, 0
			return
		case reply := <-w.r.again:
			reply <- w.reopen()
		case <-time.After(auditRetry):
		}
	}
}

// try writes the batch once. What a short write left behind is taken off the batch, so that no byte is written twice.
func (w *auditWriter) try() error {
	if w.torn {
		if _, err := w.file.Write([]byte{'\n'}); err != nil {
			return err
		}
		w.torn = false
	}
	n, err := w.file.Write(w.batch)
	if err == nil || n == 0 {
		return err
	}
	whole := bytes.LastIndexByte(w.batch[:n], '\n') + 1
	w.torn = whole < n
	done := uint64(bytes.Count(w.batch[:whole], []byte{'\n'}))
	w.r.written.Add(done)
	w.held -= done
	w.batch = append(w.batch[:0], w.batch[whole:]...)
	return err
}

// reopen puts a newly opened file in place of the old one.
func (w *auditWriter) reopen() error {
	file, err := openAudit(w.r.path)
	if err != nil {
		return err
	}
	w.file.Close()
	w.file, w.torn = file, false
	return nil
}

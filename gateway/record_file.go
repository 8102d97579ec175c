package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// auditMode keeps the records, which tell where a bottle's agent goes, to the user that runs the gateway.
const auditMode = 0o600

// auditQueue is how many records may wait for the file when no other number is given.
const auditQueue = 8192

// FileRecorder appends records to a file, one JSON object per line. Writing is done by a goroutine of its own behind a
// bounded queue: Record never waits for a disk. What finds no room is dropped and counted. It is a [ReadyRecorder].
type FileRecorder struct {
	path  string
	log   *slog.Logger
	queue chan Record
	again chan chan error // requests to reopen
	quit  chan struct{}   // closed by Close
	done  chan struct{}   // closed when the writer has ended

	closing sync.Once
	dropped atomic.Uint64
	written atomic.Uint64
	failing atomic.Bool // the last write failed
}

// OpenFileRecorder opens path for appending, making it with mode 0600 if it is not there. An existing file must be a
// regular one, and its mode is made 0600. queue is how many records may wait, 0 for a default. log, which may be nil,
// hears of failing writes. The caller must Close it.
func OpenFileRecorder(path string, queue int, log *slog.Logger) (*FileRecorder, error) {
	file, err := openAudit(path)
	if err != nil {
		return nil, err
	}
	if queue <= 0 {
		queue = auditQueue
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &FileRecorder{
		path: path, log: log,
		queue: make(chan Record, queue),
		again: make(chan chan error),
		quit:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	go r.run(file)
	return r, nil
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

// Record queues r for the file, or drops and counts it when the queue is full or closed. It does not block.
func (r *FileRecorder) Record(rec Record) {
	select {
	case <-r.quit:
		r.dropped.Add(1)
		return
	default:
	}
	select {
	case r.queue <- rec:
	default:
		r.dropped.Add(1)
	}
}

// Ready tells whether another record would be taken: there is room, the file is open, and the last write succeeded.
func (r *FileRecorder) Ready() bool {
	select {
	case <-r.quit:
		return false
	default:
		return !r.failing.Load() && len(r.queue) < cap(r.queue)
	}
}

// Dropped returns how many records were lost: no room, or a write that failed.
func (r *FileRecorder) Dropped() uint64 { return r.dropped.Load() }

// Written returns how many records were handed to the kernel.
func (r *FileRecorder) Written() uint64 { return r.written.Load() }

// Reopen closes the file and opens its path again, after whoever rotates logs has moved it away. On error the old file
// stays in use. It blocks until the writer has come to it.
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
	r.closing.Do(func() { close(r.quit) })
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close audit file: %w", ctx.Err())
	}
}

// run writes until Close.
func (r *FileRecorder) run(file *os.File) {
	w := &auditWriter{r: r, file: file, buf: bufio.NewWriterSize(file, 64<<10)}
	defer close(r.done)
	defer func() { w.file.Close() }()
	for {
		select {
		case rec := <-r.queue:
			w.write(rec)
			w.drain()
		case reply := <-r.again:
			reply <- w.reopen()
		case <-r.quit:
			w.drain()
			return
		}
	}
}

// auditWriter is the writer goroutine's side of a FileRecorder.
type auditWriter struct {
	r    *FileRecorder
	file *os.File
	buf  *bufio.Writer
	held uint64 // records in buf
}

// write adds one record to the buffer.
func (w *auditWriter) write(rec Record) {
	line, err := json.Marshal(rec)
	if err != nil {
		w.lost(1, err)
		return
	}
	if w.buf.Available() < len(line)+1 {
		w.flush()
	}
	w.held++
	w.buf.Write(line) // a bufio.Writer keeps its error for Flush
	w.buf.WriteByte('\n')
}

// drain writes what is queued now, and flushes.
func (w *auditWriter) drain() {
	for {
		select {
		case rec := <-w.r.queue:
			w.write(rec)
		default:
			w.flush()
			return
		}
	}
}

// flush hands the buffer to the kernel. If that fails, its records are lost and the recorder is not ready until a later
// write succeeds.
func (w *auditWriter) flush() {
	if w.held == 0 {
		return
	}
	err := w.buf.Flush()
	if err != nil {
		w.buf.Reset(w.file)
		w.lost(w.held, err)
	} else {
		w.r.failing.Store(false)
		w.r.written.Add(w.held)
	}
	w.held = 0
}

// lost counts n records that could not be written; the first failure in a row is logged.
func (w *auditWriter) lost(n uint64, err error) {
	w.r.dropped.Add(n)
	if !w.r.failing.Swap(true) {
		w.r.log.Error("audit records are being lost", slog.String("file", w.r.path), slog.Any("error", err))
	}
}

// reopen puts a newly opened file in place of the old one.
func (w *auditWriter) reopen() error {
	w.flush()
	file, err := openAudit(w.r.path)
	if err != nil {
		return err
	}
	w.file.Close()
	w.file = file
	w.buf.Reset(file)
	w.r.failing.Store(false)
	return nil
}

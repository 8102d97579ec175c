package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// end says which of the process's CPUs an end of a connection is pinned to.
type end int

const (
	firstCPU end = iota
	lastCPU
)

// pinned runs f on a thread of its own that is pinned to one CPU, with a blocking duplicate of the connection's socket:
// reads and writes are then system calls and nothing else, without the Go scheduler's part. Reads and writes fail after
// patience without progress. It blocks until f returns.
func pinned(c *net.TCPConn, where end, patience time.Duration, f func(fd io.ReadWriter) error) error {
	file, err := c.File()
	if err != nil {
		return fmt.Errorf("take socket: %w", err)
	}
	defer file.Close()
	fd := int(file.Fd())
	if err := unix.SetNonblock(fd, false); err != nil {
		return fmt.Errorf("make socket block: %w", err)
	}
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit); err != nil {
			return fmt.Errorf("limit waiting: %w", err)
		}
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := pin(where); err != nil {
			done <- err
			return
		}
		done <- f(socket(fd))
	}()
	return <-done
}

// pin binds the calling thread to one of the CPUs that it may use.
func pin(where end) error {
	var may, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return fmt.Errorf("read affinity: %w", err)
	}
	for cpu, left := 0, may.Count(); left > 0; cpu++ {
		if !may.IsSet(cpu) {
			continue
		}
		left--
		if where == firstCPU || left == 0 {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("pin thread: %w", err)
	}
	return nil
}

// socket reads and writes a blocking file descriptor.
type socket int

func (s socket) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(s), p)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

func (s socket) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		n, err := unix.Write(int(s), p[sent:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return sent, os.NewSyscallError("write", err)
		}
		sent += n
	}
	return sent, nil
}

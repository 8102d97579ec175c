// Package audit reads an audit file back: one JSON record a line, in which a crash may have left a torn line.
package audit

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
)

// maxLine bounds a line of the file when it is read back.
const maxLine = 1 << 20

// Find returns the last line of the file at path that holds the record with this id, without the newline; nil if there is
// none. It reads the whole file.
func Find(path, id string) ([]byte, error) {
	var found []byte
	needle := []byte(`"id":"` + id + `"`)
	err := Each(path, func(line []byte) {
		if bytes.Contains(line, needle) {
			found = bytes.Clone(line)
		}
	})
	return found, err
}

// Tail returns the last n lines of the file at path.
func Tail(path string, n int) ([][]byte, error) {
	var lines [][]byte
	err := Each(path, func(line []byte) {
		if n <= 0 {
			return
		}
		if len(lines) == n {
			copy(lines, lines[1:])
			lines = lines[:n-1]
		}
		lines = append(lines, bytes.Clone(line))
	})
	return lines, err
}

// Each calls f with every line of the file that is whole, without its newline. The line is valid only during the call.
// Lines of more than 1 MiB are passed over.
func Each(path string, f func(line []byte)) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	r := bufio.NewReaderSize(file, maxLine)
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case err == nil:
			f(line[:len(line)-1])
		case errors.Is(err, bufio.ErrBufferFull):
			if err := skipLine(r); err != nil {
				return ignoreEOF(err)
			}
		default:
			return ignoreEOF(err)
		}
	}
}

func skipLine(r *bufio.Reader) error {
	for {
		if _, err := r.ReadSlice('\n'); !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"gatewayd/gateway"
	"gatewayd/lab"
)

// recordPatience is how long flows may take to be recorded after their client has ended.
const recordPatience = 15 * time.Second

// flowRecord is what of a record matters here.
type flowRecord struct {
	Type gateway.RecordType
	Host string
	Lane gateway.Lane
}

// auditSize is where the next record will begin.
func (w *world) auditSize() (int64, error) {
	fi, err := os.Stat(w.gatewayd.AuditFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("find records: %w", err)
	}
	return fi.Size(), nil
}

// lanes counts the flows of a load that were recorded since mark, by the lane that carried them. It waits until there
// are as many as connections were made: a flow is recorded when both of its sides are closed.
func (w *world) lanes(ctx context.Context, mark int64, l load, connections int) (map[string]int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, recordPatience, fmt.Errorf("no more records after %s", recordPatience))
	defer cancel()
	var got map[string]int
	err := lab.Poll(ctx, func() error {
		text, err := w.auditSince(mark)
		if err != nil {
			return err
		}
		lanes, n, err := countLanes(text, l)
		if err != nil {
			return err
		}
		got = lanes
		if n < connections {
			return fmt.Errorf("%d flows are recorded, %d connections were made", n, connections)
		}
		return nil
	})
	if err != nil {
		return got, fmt.Errorf("read lanes of %s: %w", l.name, err)
	}
	return got, nil
}

func (w *world) auditSince(mark int64) ([]byte, error) {
	f, err := os.Open(w.gatewayd.AuditFile)
	if err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, mark, 1<<40))
	if err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	return text, nil
}

// countLanes counts flow records of the load's host or of names below it.
func countLanes(text []byte, l load) (map[string]int, int, error) {
	lanes, n := map[string]int{}, 0
	for line := range bytes.Lines(text) {
		var r flowRecord
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // still being written
		}
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, 0, fmt.Errorf("read record: %w", err)
		}
		if r.Type != gateway.RecordFlow || r.Host != l.host && !strings.HasSuffix(r.Host, "."+l.host) {
			continue
		}
		lanes[string(r.Lane)]++
		n++
	}
	return lanes, n, nil
}

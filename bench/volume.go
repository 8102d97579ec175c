package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

const (
	volumeName  = "cpu10g"
	volumeBytes = 10_000_000_000
	volumeLimit = 2 * time.Minute
)

// volumeLoad is a fixed amount, for what it costs: the process's CPU time before and after.
func volumeLoad() load {
	return load{name: volumeName, title: "CPU time of the process for 10 GB to the bottle over one connection", value: "s",
		unit: tooFew, host: rawName, paths: []string{viaGatewayd, viaRelay, viaHAProxy, viaNginx}, once: true, costs: true}
}

// arguments are what the load tells a client beside what all are told.
func (l load) arguments() []string {
	if l.name != volumeName {
		return nil
	}
	return []string{"-bytes", strconv.Itoa(volumeBytes), "-duration", volumeLimit.String()}
}

// volume takes as many bytes as it was told, and closes.
func volume(ctx context.Context, j *job) (Result, error) {
	c, err := j.greet(ctx, j.connect, j.hello)
	if err != nil {
		return Result{}, err
	}
	defer c.Close()
	begin := time.Now()
	ask := binary.BigEndian.AppendUint32([]byte{askPour}, uint32(j.duration.Milliseconds()))
	if _, err := c.Write(message(ask...)); err != nil {
		return Result{}, err
	}
	buf := make([]byte, bulkWrite)
	var n int64
	for n < j.bytes {
		got, err := c.Read(buf)
		n += int64(got)
		if errors.Is(err, io.EOF) {
			return Result{}, fmt.Errorf("%d of %d bytes came in %s", n, j.bytes, time.Since(begin))
		}
		if err != nil {
			return Result{}, fmt.Errorf("after %d bytes: %w", n, err)
		}
	}
	return Result{Units: float64(n), Seconds: time.Since(begin).Seconds(), Connections: 1}, nil
}

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// queueWord begins what queuesClient sends, with the number of a CPU behind it.
const queueWord = "gatewayd-e2e-queue:"

// queuesClient sends datagrams to EVIL from each of COUNT CPUs, and so by each of the card's queues (Linux picks the sending
// CPU's, Documentation/networking/scaling.rst). It prints the CPUs of each queue, as a mask.
func queuesClient(_ context.Context, args []string) error {
	evil, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	found, err := filepath.Glob("/sys/class/net/eth0/queues/tx-*/xps_cpus")
	if err != nil {
		return err
	}
	for _, f := range found {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		fmt.Println("CPUs", strings.TrimLeft(strings.TrimSpace(string(text)), "0,"))
	}
	var errs []error
	for cpu := range count {
		sent := make(chan error)
		go func() { sent <- sendFrom(cpu, netip.AddrPortFrom(evil, 9999)) }()
		errs = append(errs, <-sent)
	}
	return errors.Join(errs...)
}

// sendFrom sends from one CPU. Its thread ends with the goroutine.
func sendFrom(cpu int, to netip.AddrPort) error {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("go to CPU %d: %w", cpu, err)
	}
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return err
	}
	defer c.Close()
	for range 3 {
		if _, err := c.Write([]byte(queueWord + strconv.Itoa(cpu) + ";")); err != nil {
			return err
		}
	}
	return nil
}

package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"gatewayd/cmd/gatewayd/internal/admin"
	"gatewayd/gateway"
)

func TestTable(t *testing.T) {
	tab := &table{head: []string{"NAME", "N"}}
	tab.add(cell{"é\x1b[2J", red}, text(7))
	tab.add(text("long name"), text(""))
	for colour, want := range map[bool]string{
		false: "NAME       N\né?[2J      7\nlong name\n",
		true:  "\x1b[1mNAME\x1b[0m       \x1b[1mN\x1b[0m\n\x1b[31mé?[2J\x1b[0m      7\nlong name\n",
	} {
		var b strings.Builder
		if err := tab.write(&b, colour); err != nil || b.String() != want {
			t.Errorf("colour %v: got %q, want %q", colour, b.String(), want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 1_234_567: "1.2 MB", 5_000_000_000: "5.00 GB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}

func TestBottleTable(t *testing.T) {
	var b strings.Builder
	err := bottleTable([]admin.Bottle{
		{Bottle: "dev", State: "running", Up: true, Link: "gw-dev", Guest: "198.19.0.2", Routes: 2, Flows: 1, Plan: "sha256:0123456789abcdef", Drops: map[string]uint64{"ipv6": 2, "udp": 3}},
		{Bottle: "down", State: "running", LinkError: "no such device"},
		{Manifest: "/x/new.bottle.yaml", State: "shut", Error: "is empty"},
	}).write(&b, false)
	want := `BOTTLE             STATE      LINK    GUEST       ROUTES  FLOWS  DROPPED  PLAN          PROBLEM
dev                running    gw-dev  198.19.0.2  2       1      5        0123456789ab
down               link shut                      0       0      0                      no such device
(new.bottle.yaml)  shut                           0       0      0                      is empty
`
	if err != nil || b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestFlowTable(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var b strings.Builder
	err := flowTable([]admin.Flow{
		{Decision: "intercept", FlowInfo: gateway.FlowInfo{ID: "f-1", Bottle: "dev", Host: "api.example.com", Port: 443, Lane: gateway.LaneIntercept, Since: now.Add(-90 * time.Second), BytesUp: 1500}},
		{Decision: "deny", FlowInfo: gateway.FlowInfo{ID: "f-2", Bottle: "dev", Dst: netip.MustParseAddrPort("192.0.2.1:22"), Port: 22, Lane: gateway.LaneNone, Since: now}},
	}, now).write(&b, false)
	want := `BOTTLE  TO                   DECISION   LANE       UP      DOWN  AGE    ID
dev     api.example.com:443  intercept  intercept  1.5 kB  0 B   1m30s  f-1
dev     192.0.2.1:22         deny       none       0 B     0 B   0s     f-2
`
	if err != nil || b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

// Every error type that has an exit code of its own has it through wrapping, and others are failures.
func TestExitCode(t *testing.T) {
	if exitCode(nil) != exitOK || exitCode(&admin.NotRunningError{}) != exitNotRunning || exitCode(usagef("x")) != exitUsage ||
		exitCode(&exitError{code: exitDenied}) != exitDenied || exitCode(&admin.StatusError{Code: 404}) != exitFailed {
		t.Error("exit codes differ from the manual's")
	}
}

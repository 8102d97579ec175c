package main

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
)

// label is a row's name for people: gatewayd's says which lane carried the load.
func (row Row) label() string {
	switch row.Path {
	case viaGatewayd, viaVMFast, viaVMRelay, viaVMIntercept:
		return "gatewayd, " + row.lanes()
	case viaHAProxy:
		return "HAProxy, TCP mode by SNI"
	case viaNginx:
		return "nginx, stream by SNI"
	case viaRelay:
		return "gatewayd, relay (its address is not pinned)"
	case viaVMKernel:
		return "kernel forwarding, the same VM's other card"
	case viaUnscanned:
		return "gatewayd, decrypted and not scanned"
	case viaQuiet:
		return "gatewayd, with nothing beside"
	case viaKernel:
		return "kernel forwarding (the limit)"
	case viaFlowtable:
		return "kernel forwarding with nft's flowtable"
	case viaIperf:
		return "kernel forwarding, iperf3 for client and server"
	case viaReencrypt:
		return "HAProxy, re-encrypting"
	case viaNginxTLS:
		return "nginx, re-encrypting"
	case viaSquid:
		return "squid, ssl-bump"
	}
	if n, ok := openPaths[row.Path]; ok {
		return fmt.Sprintf("gatewayd, %d open on the fast path", n)
	}
	return row.Path
}

// lanes names the lane that carried the load, and where there were several how many connections each did.
func (row Row) lanes() string {
	names := slices.Sorted(maps.Keys(row.Lanes))
	switch len(names) {
	case 0:
		return row.Path
	case 1:
		return names[0]
	}
	for i, name := range names {
		names[i] = fmt.Sprintf("%s × %d", name, row.Lanes[name])
	}
	return strings.Join(names, " and ")
}

// figure is a number with three digits that count.
func figure(v float64) string {
	if v == 0 {
		return "0"
	}
	decimals := max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	return fmt.Sprintf("%.*f", min(decimals, 6), v)
}

// cells are a row's columns: path, value, spread, CPU, memory, gatewayd's factor, gatewayd's CPU.
func (l LoadReport) cells(row Row) []string {
	if row.Absent != "" {
		return []string{row.label(), "absent: " + row.Absent, "", "", "", "", ""}
	}
	out := []string{row.label(), figure(row.Value), figure(row.Low) + "–" + figure(row.High), figure(row.CPU), "–", "–", "–"}
	switch {
	case l.CPUUnit == "":
		out[3] = "–"
	case slices.Contains([]string{viaKernel, viaIperf, viaFlowtable, viaVMKernel}, row.Path):
		out[3] += " (softirq)"
	}
	if row.ResidentBytes > 0 {
		out[4] = figure(float64(row.ResidentBytes) / (1 << 20))
	}
	if row.Forwarding > 0 {
		out[5] = figure(row.Forwarding) + "×"
	}
	if row.Gatewayd > 0 {
		out[5] = figure(row.Gatewayd) + "×"
	}
	if row.GatewaydCPU > 0 {
		out[6] = figure(row.GatewaydCPU) + "×"
	}
	return out
}

func (l LoadReport) head() []string {
	better := "more is better"
	if l.LessIsBetter {
		better = "less is better"
	}
	compared := "gatewayd is"
	if slices.ContainsFunc(l.Rows, func(r Row) bool { return isVM(r.Path) }) {
		compared = "of plain forwarding"
	}
	return []string{"path", l.Unit + ", " + better, "range", l.cpuHead(), "RSS, MiB", compared, "gatewayd's CPU"}
}

func (l LoadReport) cpuHead() string {
	if l.CPUUnit == "" {
		return "CPU"
	}
	return "CPU, " + l.CPUUnit
}

// machine is the line that says where the figures are from.
func (r *Report) machine() string {
	return fmt.Sprintf("%s, %d CPUs, Linux %s; load average %.2f before and %.2f after",
		r.CPU, r.CPUs, r.Kernel, r.LoadBefore, r.LoadAfter)
}

// table is the report for a terminal.
func (r *Report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s, which took %s\n%s\n", r.Date, r.Command, r.Took, r.machine())
	for _, l := range r.Loads {
		fmt.Fprintf(&b, "\n%s\n", l.Title)
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "  "+strings.Join(l.head(), "\t"))
		for _, row := range l.Rows {
			fmt.Fprintln(t, "  "+strings.Join(l.cells(row), "\t"))
		}
		_ = t.Flush() // into memory
	}
	return b.String()
}

// anyPath is a path of this machine, in the reason of an absent row: the document names none.
var anyPath = regexp.MustCompile(`(/[\w.+-]+){2,}`)

const preface = `# Benchmarks

Written by ` + "`make bench`" + `; every run of all loads writes it anew.

A bottle, a gateway and an internet, each a network namespace, joined by veth pairs. gatewayd's gateway and the peers' are two of the same kind, so that neither carries the other's rules. All paths are measured in each round, one after another, beginning with another one each time. A figure is the median of the rounds. "gatewayd is" compares within each round and takes the median: above 1× gatewayd is better, whichever way the unit is read. "gatewayd's CPU" is its CPU time for the same work, as a multiple: below 1× it takes less.

- CPU is user and system time of the process and its children, for one unit of work, and what interrupts took while they ran. Forwarding has no process; its figure is what all software interrupts of the machine took meanwhile, in steps of 10 ms, other work's included, and no ratio is made of it. The other paths cause software interrupts too, which are in nobody's figure.
- RSS is of the process and its children after the load; pages that they share count for each. gatewayd's is of the same process through all loads. What open connections take is looked at when they have been open for three seconds, on every path, and so is what the process had before: by then gatewayd has collected what opening them left, and given it back.
- gatewayd's rows name the lane by its own flow records, one for each connection. Its CPU is measured when all of these are written, one to three seconds after a fast-path flow's end, with what it does at any time; a load that passes through begins when it is at rest, and with a run over plain forwarding that does not count. Where a load makes many connections, its clients take their ports one after another, others in each round, on every path: a connection from a port that a flow had three seconds before is the relay's. A row of several lanes says how many connections each had. The relay's rows call an address in a private range, which the plan allows and the fast path never takes.
- All loads but those over HTTPS use a client and a server of the bench's own, on every path alike: a real ClientHello of Go's TLS client (TLS 1.3, with a post-quantum share, so two segments), an answer of 128 bytes, then TLS records of plain bytes without TLS's cryptography, whose cost would hide that of the way. Bulk is measured with ends that may run anywhere, which take two or three times the rate when the scheduler puts both on one CPU, so that their rows differ from round to round and say little of the way, and with both pinned to one. iperf3 sends no hello, so no gate that decides by name would pass it; its rows are over plain forwarding and say how the bench's own bulk client compares with it on the same way. The sender of bulk has CUBIC, Linux's default, whatever the machine's is; where the kernel has BBR, with that as well: over links without a length BBR's rate depends on when acknowledgements come more than on what the way costs (docs/ARCHITECTURE.md, The lane). Request and response is measured twice: with client and server pinned to a CPU of their own each, where there are two, so that waking the other CPU is most of the time and the same for every path; and with both pinned to one, where hardly anything but the way itself is left, and a proxy that runs on another CPU has its own wake-ups counted against it.
- The loads over HTTPS ask nginx, with TLS 1.3, X25519, P-256 certificates and AES-128-GCM. "Decrypted" compares equal work: both ends TLS, the server's certificate verified, a credential set. gatewayd also writes a record for each request, limits and masks; "not scanned" is a route whose requests the scanner leaves alone.
- HAProxy and nginx terminate with the server's own certificate; squid (` + "`ssl-bump`" + `, redirected to) and mitmproxy (transparent mode) as gatewayd does with certificates of an authority of their own, P-256 all. nginx, squid and mitmproxy let bodies through as they come. squid speaks no HTTP/2 with a client and resumed no session when tried; mitmproxy was tried with neither. Both lack in those rows. A handshake's row has one request of 1 KB in it.
- A guest finds HAProxy and nginx by their addresses and gatewayd by its DNS, transparently; in the load "first" all ask DNS, the peers' bottle through forwarding.
- The loads from a VM run in a microVM under QEMU that has two cards: its bottle's tap, and a tap on the same gateway from which the kernel forwards and masquerades. The VM's default route says which a load takes, so that it is the same VM beside itself, and "of plain forwarding" compares each lane with its other card in the same rounds. Where QEMU emulates (TCG), the guest's own work weighs far more than the way, and only the ratios mean something; the list of versions says which it was. iperf3 has a route of ` + "`protocol: tcp`" + `, which the relay carries; through the fast path and the relay a client of the bench's own sends a real hello first, and no iperf3 can go through interception, which speaks HTTP: the file of 8 MB stands there.
- gatewayd and the peers run with as many threads as they choose. A rate on CPUs that the load's own ends share says as much about these; the CPU column does not.

`

// markdown is the document.
func (r *Report) markdown() string {
	var b strings.Builder
	b.WriteString(preface)
	fmt.Fprintf(&b, "## The run\n\n- Command: `%s`, which took %s\n- Date: %s\n- Machine: %s\n", r.Command, r.Took, r.Date, r.machine())
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(&b, "- %s: %s\n", name, r.Versions[name])
	}
	if busy := r.LoadBefore / float64(max(1, r.CPUs)); busy > 0.25 {
		fmt.Fprintf(&b, "\n**The machine was busy with other work when this run began (load average %.2f on %d CPUs): the figures are provisional.**\n", r.LoadBefore, r.CPUs)
	}
	for _, l := range r.Loads {
		fmt.Fprintf(&b, "\n### %s\n\n", l.Title)
		head := l.head()
		fmt.Fprintf(&b, "| %s |\n|---%s\n", strings.Join(head, " | "), strings.Repeat("|---:", len(head)-1)+"|")
		for _, row := range l.Rows {
			cells := l.cells(row)
			for i := range cells {
				cells[i] = anyPath.ReplaceAllString(strings.ReplaceAll(cells[i], "|", "\\|"), "…")
			}
			fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
		}
	}
	return b.String()
}

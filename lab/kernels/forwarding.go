package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// benchName is the command that measures.
const benchName = "bench"

// Load is what one load of the bench showed on one kernel, in the form of its report (-o json).
type Load struct {
	Name, Title, Unit string
	LessIsBetter      bool `json:"less_is_better"`
	Rows              []Row
}

// Row is what one path made of it. Gatewayd is how many times better gatewayd was than this path in the same rounds.
type Row struct {
	Path, Absent    string
	Value, Gatewayd float64
}

// forwarders are the bench's paths that forward, and their names.
var forwarders = []struct{ path, name string }{
	{"gatewayd", "gatewayd's fast path"}, {"kernel", "masquerading"}, {"flowtable", "nft's flowtable"},
}

// measure runs the bench's loads of one flow over everything that forwards.
func (m machine) measure(ctx context.Context, o *options, b *built, k *Kernel, run runner) error {
	bench, gatewayd := b.bench, b.gatewayd
	if m.dir != "" {
		bench, gatewayd = inGuest(bench), inGuest(gatewayd)
	}
	var paths []string
	for _, f := range forwarders {
		paths = append(paths, f.path)
	}
	var out, errOut bytes.Buffer
	code, err := run(ctx, "", nil, []string{bench, "-only", "rr,up,down", "-paths", strings.Join(paths, ","), "-rounds", "3", "-seconds", "2",
		"-o", "json", "-gatewayd", gatewayd}, &out, &errOut)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s", code, bytes.TrimSpace(errOut.Bytes()))
	}
	if err != nil {
		return fmt.Errorf("measure forwarding: %w", err)
	}
	var report struct{ Loads []Load }
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		return fmt.Errorf("read the bench's report: %w", err)
	}
	k.Loads, k.Measured = report.Loads, newMark(b.commit)
	o.say("%-5s measured %d loads", m.name, len(k.Loads))
	return nil
}

// best is the path that won.
func (l Load) best() string {
	best, name := 0.0, "–"
	for _, f := range forwarders {
		for _, r := range l.Rows {
			if r.Path != f.path || r.Value <= 0 { // absent, or less than the machine's clock can tell
				continue
			}
			if v := r.Value; best == 0 || v > best && !l.LessIsBetter || v < best && l.LessIsBetter {
				best, name = v, f.name
			}
		}
	}
	return name
}

// forwarding is the table of the loads.
func (r *Report) forwarding(b *strings.Builder) {
	b.WriteString("\n## Forwarding\n\nOne flow between namespaces on each kernel, masqueraded: over gatewayd's fast path, over plain forwarding, and over plain forwarding with a flowtable of nft's (`flow add @…`), which takes an established flow past routing and netfilter. Medians of three interleaved rounds of two seconds of `bench`; the factors compare within each round. Under emulation (TCG) only the factors mean something, and even they weigh instructions and not caches; where the emulated clock is too coarse for one request, the figure is the mean.\n\n")
	b.WriteString("| kernel | of | load |")
	for _, f := range forwarders {
		b.WriteString(" " + f.name + " |")
	}
	b.WriteString(" gatewayd to masquerading | gatewayd to flowtable | best |\n|---|---|---|" + strings.Repeat("---:|", len(forwarders)+2) + "---|\n")
	for _, k := range r.Kernels {
		for _, l := range k.Loads {
			fmt.Fprintf(b, "| %s | %s | %s |", k.Release, k.Measured, l.Title)
			factors := map[string]string{}
			for _, f := range forwarders {
				value := "–"
				for _, row := range l.Rows {
					if row.Path != f.path {
						continue
					}
					switch {
					case row.Absent != "":
						value = "absent: " + row.Absent
					case row.Value > 0:
						value = fmt.Sprintf("%.4g %s", row.Value, l.Unit)
					}
					if row.Gatewayd > 0 {
						factors[f.path] = fmt.Sprintf("%.2f×", row.Gatewayd)
					}
				}
				b.WriteString(" " + value + " |")
			}
			fmt.Fprintf(b, " %s | %s | %s |\n", factors["kernel"], factors["flowtable"], l.best())
		}
	}
}

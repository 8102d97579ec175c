package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Report is everything that a run found out.
type Report struct {
	Command string `json:"command"`
	Date    string `json:"date"`
	CPU     string `json:"cpu"`
	CPUs    int    `json:"cpus"`
	Kernel  string `json:"kernel"`
	// Took is how long the whole run took, begun when it began.
	Took  string `json:"took"`
	begun time.Time
	// LoadBefore and LoadAfter are the load averages of one minute: much of either before the run was somebody else's.
	LoadBefore float64           `json:"load_before"`
	LoadAfter  float64           `json:"load_after"`
	Versions   map[string]string `json:"versions"`
	Loads      []LoadReport      `json:"loads"`
}

// LoadReport is what one load showed.
type LoadReport struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	// Unit is that of Row.Value, CPUUnit that of Row.CPU.
	Unit    string `json:"unit"`
	CPUUnit string `json:"cpu_unit,omitempty"`
	// LessIsBetter says which way Row.Value is to be read.
	LessIsBetter bool  `json:"less_is_better"`
	Rows         []Row `json:"rows"`
}

// Row is what one path made of the load: medians over the rounds.
type Row struct {
	Path string `json:"path"`
	// Lanes are how many connections each of gatewayd's lanes carried, by their flow records, in all rounds.
	Lanes map[string]int `json:"lanes,omitempty"`
	Value float64        `json:"value"`
	// CPU is the CPU time of the process for one unit of work; for the kernel that of all software interrupts.
	CPU float64 `json:"cpu"`
	// ResidentBytes is the process's memory after the load.
	ResidentBytes int64 `json:"resident_bytes,omitempty"`
	// Gatewayd is how many times better gatewayd was in the same rounds, GatewaydCPU how many times the CPU time it took.
	Gatewayd    float64 `json:"gatewayd,omitempty"`
	GatewaydCPU float64 `json:"gatewayd_cpu,omitempty"`
	// Forwarding is, of a load from a VM, how many times better this path was than plain forwarding in the same rounds.
	Forwarding float64 `json:"forwarding,omitempty"`
	// Low and High are the extremes of Value.
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	// Absent says why there are no figures.
	Absent string `json:"absent,omitempty"`
}

func newReport(o *options) (*Report, error) {
	r := &Report{
		Command: fmt.Sprintf("make bench ROUNDS=%d SECONDS=%v", o.rounds, o.duration.Seconds()),
		Date:    time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		begun:   time.Now(),
	}
	if o.only != "" {
		r.Command += " ONLY=" + o.only
	}
	if o.paths != "" {
		r.Command += " PATHS=" + o.paths
	}
	return r, r.describeMachine()
}

// finish computes the rows.
func (r *Report) finish(loads []load, t *tally) {
	r.LoadAfter = loadAverage()
	r.Took = time.Since(r.begun).Round(time.Second).String()
	for _, l := range loads {
		lr := LoadReport{Name: l.name, Title: l.title, Unit: l.value, LessIsBetter: l.lessIsBetter()}
		if l.unit != tooFew {
			lr.CPUUnit = l.unit.name
		}
		own := t.samples[key(l, l.reference())]
		for _, via := range l.paths {
			lr.Rows = append(lr.Rows, row(l, via, t, own))
		}
		r.Loads = append(r.Loads, lr)
	}
}

func row(l load, via string, t *tally, own []sample) Row {
	k := key(l, via)
	if err := t.absent[k]; err != nil {
		return Row{Path: via, Absent: strings.ReplaceAll(err.Error(), "\n", " ")}
	}
	samples := t.samples[k]
	out := Row{Path: via, Low: samples[0].Value, High: samples[0].Value, Lanes: map[string]int{}}
	var values, cpus, resident, better, dearer []float64
	for i, s := range samples {
		values, resident = append(values, s.Value), append(resident, float64(s.Resident))
		out.Low, out.High = min(out.Low, s.Value), max(out.High, s.Value)
		cpus = append(cpus, l.unit.cpu(s))
		for lane, n := range s.Lanes {
			out.Lanes[lane] += n
		}
		if via == l.reference() || i >= len(own) {
			continue
		}
		if own[i].Value == 0 || s.Value == 0 {
			continue // memory that did not grow
		}
		factor := own[i].Value / s.Value
		if l.lessIsBetter() {
			factor = 1 / factor
		}
		if l.vm() {
			factor = 1 / factor
		}
		better = append(better, factor)
		if l.vm() {
			continue
		}
		if via != viaKernel && via != viaIperf && via != viaFlowtable && l.unit.cpu(s) > 0 {
			dearer = append(dearer, l.unit.cpu(own[i])/l.unit.cpu(s))
		}
	}
	out.Value, out.CPU, out.ResidentBytes = middle(values), middle(cpus), int64(middle(resident))
	if l.vm() {
		out.Forwarding = middle(better)
		return out
	}
	out.Gatewayd, out.GatewaydCPU = middle(better), middle(dearer)
	return out
}

// cpu is the CPU time of a sample for one unit.
func (u unit) cpu(s sample) float64 { return s.CPU / s.Units * u.scale }

// middle is the median, 0 of nothing.
func middle(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// write prints the report and writes the document.
func (r *Report) write(o *options, out io.Writer) error {
	var errs []error
	if o.output == "json" {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		errs = append(errs, e.Encode(r))
	} else {
		_, err := io.WriteString(out, r.table())
		errs = append(errs, err)
	}
	if o.document != "" {
		if err := os.WriteFile(o.document, []byte(r.markdown()), 0o644); err != nil {
			errs = append(errs, fmt.Errorf("write document: %w", err))
		}
	}
	return errors.Join(errs...)
}

package daemon

import (
	"encoding/json"
	"net/http"
	"os"
	"strconv"

	"gatewayd/cmd/gatewayd/internal/admin"
	"gatewayd/cmd/gatewayd/internal/audit"
	"gatewayd/cmd/gatewayd/internal/manifests"
	"gatewayd/gateway"
	"gatewayd/gateway/redirect"
)

// streamBuffer is how many records a follower of /log may lag behind before it misses some.
const streamBuffer = 1024

// counter knows what the kernel counted; *redirect.Redirect satisfies it.
type counter interface {
	Counters(bottle string) (redirect.Counters, error)
}

// api answers on the admin socket.
func (d *daemon) api() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, d.status()) })
	m.HandleFunc("GET /bottles", func(w http.ResponseWriter, _ *http.Request) { answer(w, d.bottles()) })
	m.HandleFunc("GET /flows", func(w http.ResponseWriter, r *http.Request) { answer(w, d.flows(r.FormValue("bottle"))) })
	m.HandleFunc("GET /explain", d.explain)
	m.HandleFunc("GET /log", d.follow)
	m.HandleFunc("POST /release", d.release)
	m.Handle("GET /metrics", d.metrics.Handler())
	return m
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client went away
}

// release lets ?bottle= go on, which was cut off.
func (d *daemon) release(w http.ResponseWriter, r *http.Request) {
	if err := d.gateway.Release(r.FormValue("bottle")); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	answer(w, struct{}{})
}

func (d *daemon) status() admin.Status {
	entries, failure := d.keeper.entries()
	s := admin.Status{
		Version: d.Version, Instance: d.Config.Instance, PID: os.Getpid(), Started: d.started, Failure: failure,
		Manifests: map[string]int{}, Flows: len(d.gateway.Flows()), AuditReady: true,
	}
	for _, e := range entries {
		s.Manifests[string(e.State)]++
	}
	if d.audit != nil {
		s.AuditReady, s.AuditDropped = d.audit.Ready(), d.audit.Dropped()
	}
	return s
}

// bottles joins what the manifests say with what runs.
func (d *daemon) bottles() []admin.Bottle {
	entries, _ := d.keeper.entries()
	running := map[string]gateway.BottleInfo{}
	for _, b := range d.gateway.Bottles() {
		running[b.Name] = b
	}
	out := make([]admin.Bottle, 0, len(entries))
	for _, e := range entries {
		v := admin.Bottle{Bottle: e.Bottle, Manifest: e.File, State: string(e.State)}
		if e.Err != nil {
			v.Error = e.Err.Error()
		}
		if e.State != manifests.Shut {
			v.FillLink(e.Value.bottle.Link)
			d.fill(&v, running[e.Bottle])
		}
		out = append(out, v)
	}
	return out
}

// fill adds what is known of a running bottle; i is zero when the gateway does not run it.
func (d *daemon) fill(v *admin.Bottle, i gateway.BottleInfo) {
	if i.Name == "" {
		v.State = string(manifests.Shut)
		if _, failure := d.keeper.entries(); v.Error == "" {
			v.Error = failure
		}
		return
	}
	v.Plan, v.Up, v.LinkError, v.Since = i.Plan, i.Up, i.LinkError, i.Since
	v.Routes, v.Flows, v.Pins, v.CutOff = i.Routes, i.Flows, i.Pins, i.CutOff
	if i.PlanError != "" {
		v.State, v.Error = string(manifests.Stale), i.PlanError
	}
	c, err := d.counters.Counters(i.Name)
	if err != nil {
		return
	}
	v.Drops = map[string]uint64{}
	for reason, n := range c.Drops {
		if n > 0 {
			v.Drops[reason.String()] = n
		}
	}
}

func (d *daemon) flows(bottle string) []gateway.FlowInfo {
	out := []gateway.FlowInfo{}
	for _, f := range d.gateway.Flows() {
		if bottle == "" || f.Bottle == bottle {
			out = append(out, f)
		}
	}
	return out
}

// explain answers with the record that has ?id=, from memory or else from the audit file.
func (d *daemon) explain(w http.ResponseWriter, r *http.Request) {
	id := r.FormValue("id")
	if rec, ok := d.gateway.Find(id); ok {
		answer(w, rec)
		return
	}
	if d.Config.AuditFile != "" && id != "" {
		if line, err := audit.Find(d.Config.AuditFile, id); err == nil && line != nil {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(append(line, '\n')) // the client went away
			return
		}
	}
	http.Error(w, "no record has the id "+strconv.Quote(id), http.StatusNotFound)
}

// follow answers with the last ?n= records of ?bottle=, one JSON object a line, and goes on with new ones as they come if
// ?follow=1.
func (d *daemon) follow(w http.ResponseWriter, r *http.Request) {
	bottle := r.FormValue("bottle")
	n, err := strconv.Atoi(r.FormValue("n"))
	if err != nil || n < 0 {
		http.Error(w, "n must be a number of records", http.StatusBadRequest)
		return
	}
	sub := d.gateway.Subscribe(streamBuffer) // before Recent: what comes in between is seen twice at worst, and never missed
	defer sub.Close()
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	seen := map[string]bool{}
	for _, rec := range d.gateway.Recent(bottle, n) {
		seen[rec.ID] = true
		if enc.Encode(rec) != nil {
			return
		}
	}
	if r.FormValue("follow") != "1" {
		return
	}
	flush := http.NewResponseController(w)
	for {
		if flush.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case rec, ok := <-sub.Records():
			if !ok {
				return
			}
			if bottle != "" && rec.Bottle != bottle || seen[rec.ID] {
				continue
			}
			if enc.Encode(rec) != nil {
				return
			}
		}
	}
}

package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"gatewayd/lab"
)

// screen writes the report, as lines while the demo runs or as one JSON
// document at its end.
type screen struct {
	out          io.Writer
	json, colour bool
	outcomes     []Outcome
	gatewayLog   string
}

func newScreen(o Options) *screen {
	return &screen{out: o.Out, json: o.JSON, colour: o.Colour && !o.JSON}
}

func (s *screen) printf(format string, args ...any) {
	if !s.json {
		fmt.Fprintf(s.out, format, args...)
	}
}

func (s *screen) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *screen) begin() {
	s.printf("Building a small internet, a bottle and a gateway between them …\n")
}

func (s *screen) built(sc *scene) {
	where := "behind " + sc.bottle.Gateway.String()
	if sc.vm != nil {
		where = fmt.Sprintf("on tap %s, a VM with Linux %s (QEMU, %s)", tapName, sc.vm.Kernel, sc.vm.How)
	}
	s.printf("  bottle    %s %s, no proxy set, the gateway's CA trusted\n", sc.bottle.Name, where)
	s.printf("  internet  %s: api, files, packages and evil.example.org\n", lab.Public)
	s.printf("  plan      api: inject token · files: scan · packages: pass through · all else: deny\n\n")
}

func (s *screen) show(o Outcome) {
	s.outcomes = append(s.outcomes, o)
	mark := s.paint("32", "✓")
	if !o.OK {
		mark = s.paint("31", "✗")
	}
	s.printf("%s %s  %s\n", mark, s.paint("1", fmt.Sprintf("%-14s", o.Title)), o.Tried)
	for _, f := range o.Facts {
		text := f.Text
		if !f.OK {
			text = s.paint("31", "NOT AS EXPECTED: "+text)
		}
		s.printf("    %s\n", text)
	}
}

// logLines is how much of gatewayd's log is shown.
const logLines = 40

// log keeps the end of what gatewayd wrote, for a demo that went wrong.
func (s *screen) log(text string) {
	lines := strings.Split(text, "\n")
	text = strings.Join(lines[max(0, len(lines)-logLines):], "\n")
	s.gatewayLog = text
	s.printf("\nWhat gatewayd wrote:\n%s\n", strings.TrimSpace(text))
}

// report is the JSON document.
type report struct {
	OK         bool      `json:"ok"`
	Outcomes   []Outcome `json:"outcomes"`
	LeftBehind []string  `json:"left_behind"`
	Log        string    `json:"gatewayd_log,omitempty"`
}

func (s *screen) end(left []string) error {
	r := report{OK: len(left) == 0, Outcomes: s.outcomes, LeftBehind: append([]string{}, left...), Log: s.gatewayLog}
	good := 0
	for _, o := range s.outcomes {
		r.OK = r.OK && o.OK
		if o.OK {
			good++
		}
	}
	if s.json {
		e := json.NewEncoder(s.out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(r); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
		return nil
	}
	s.printf("\n%d of %d as expected; ", good, len(s.outcomes))
	if len(left) > 0 {
		s.printf("%s %s\n", s.paint("31", "left behind:"), strings.Join(left, ", "))
	} else {
		s.printf("nothing left behind (namespaces, interfaces, BPF, nftables, ip rules).\n")
	}
	return nil
}

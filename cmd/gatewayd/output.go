package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// format is the value of --output.
type format string

// The formats.
const (
	formatText format = "text"
	formatJSON format = "json"
)

// String, Set and Type make a format a flag.
func (f *format) String() string { return string(*f) }

// Set refuses all but the two formats.
func (f *format) Set(s string) error {
	switch format(s) {
	case formatText, formatJSON:
		*f = format(s)
		return nil
	}
	return fmt.Errorf("write text or json")
}

// Type is shown in the help.
func (f *format) Type() string { return "text|json" }

// outputFlag adds -o to a command.
func outputFlag(c *cobra.Command) *format {
	f := formatText
	c.Flags().VarP(&f, "output", "o", "form of the output")
	return &f
}

// printJSON writes v with indentation.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// style is a colour of a terminal (ECMA-48 SGR).
type style string

// The styles.
const (
	plain  style = ""
	bold   style = "1"
	green  style = "32"
	yellow style = "33"
	red    style = "31"
)

// cell is one field of a table.
type cell struct {
	text  string
	style style
}

// text makes a cell without style.
func text(v any) cell { return cell{text: fmt.Sprint(v)} }

// table is rows of cells under a head, in columns as wide as they need.
type table struct {
	head []string
	rows [][]cell
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

// write writes the head and the rows; with colour, styles are shown.
func (t *table) write(w io.Writer, colour bool) error {
	head := make([]cell, 0, len(t.head))
	for _, h := range t.head {
		head = append(head, cell{h, bold})
	}
	return (&table{rows: append([][]cell{head}, t.rows...)}).writeRows(w, colour)
}

// writeRows writes the rows alone. Control characters in cells are shown as '?': some come from a guest.
func (t *table) writeRows(w io.Writer, colour bool) error {
	width := map[int]int{}
	for _, row := range t.rows {
		for i := range row {
			row[i].text = printable(row[i].text)
			width[i] = max(width[i], utf8.RuneCountInString(row[i].text))
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		line := ""
		for i, c := range row {
			s := c.text
			if colour && c.style != plain && s != "" {
				s = "\x1b[" + string(c.style) + "m" + s + "\x1b[0m"
			}
			line += s
			if i < len(row)-1 {
				line += strings.Repeat(" ", width[i]-utf8.RuneCountInString(c.text)+2)
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printable replaces what would move a terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// size writes a number of bytes in three digits or so.
func size(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1000_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	default:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	}
}

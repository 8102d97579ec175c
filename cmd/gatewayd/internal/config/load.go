package config

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
)

// maxFile bounds the configuration file: a person wrote it.
const maxFile = 1 << 20

// Source is a configuration file as read, with what is needed to point into it.
type Source struct {
	// Path is empty when there was no file.
	Path string
	// File holds the keys.
	File File

	text []byte
}

// Load reads the configuration file at path. An empty path means DefaultPath, which may be absent; a path that was asked
// for may not. The errors are *Error for what is wrong in the file and *fs.PathError for a file that cannot be read.
func Load(path string) (*Source, error) {
	asked := path != ""
	if !asked {
		path = DefaultPath
	}
	f, err := os.Open(path)
	if err != nil {
		if !asked && errors.Is(err, fs.ErrNotExist) {
			return &Source{}, nil
		}
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	return Parse(path, text)
}

// Parse decodes the text of a configuration file. Unknown and repeated keys, wrong types and a second document are
// refused with an *Error. Values are judged by Source.Resolve, after the flags.
func Parse(path string, text []byte) (*Source, error) {
	if len(text) > maxFile {
		return nil, &Error{File: path, Problem: "is longer than 1 MiB", Remedy: "is this the configuration file?"}
	}
	s := &Source{Path: path, text: text}
	dec := yaml.NewDecoder(bytes.NewReader(text), yaml.DisallowUnknownField())
	switch err := decode(dec, &s.File); {
	case errors.Is(err, io.EOF):
		return s, nil
	case err != nil:
		return nil, s.decodeError(err)
	}
	var second any
	if err := decode(dec, &second); !errors.Is(err, io.EOF) {
		return nil, &Error{File: path, Problem: "holds more than one YAML document", Remedy: "keep one and remove the '---' between them"}
	}
	return s, nil
}

// decode reads one document. The YAML library follows nil pointers on some texts (a tag before a scalar where a list is
// wanted, for one); such a text is refused like any other that it cannot read.
func decode(dec *yaml.Decoder, v any) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("cannot be read as YAML of the keys that there are")
		}
	}()
	return dec.Decode(v)
}

// decodeError turns an error of the YAML library into an *Error with its line and, for an unknown key, the keys there are.
func (s *Source) decodeError(err error) error {
	e := &Error{File: s.Path, Problem: err.Error()}
	var ye yaml.Error
	if !errors.As(err, &ye) {
		return e
	}
	e.Problem = ye.GetMessage()
	if t := ye.GetToken(); t != nil && t.Position != nil {
		e.Line = t.Position.Line
	}
	var unknown *yaml.UnknownFieldError
	if errors.As(err, &unknown) {
		e.Problem = "unknown key " + unknown.GetToken().Value
		e.Remedy = "the keys are " + strings.Join(Keys(), ", ")
	}
	return e
}

// line finds the line of a dotted key in the text, with or without an index ("allow_ranges[1]"); 0 when it is not there,
// as for a value that came from a flag.
func (s *Source) line(key string) int {
	if len(s.text) == 0 {
		return 0
	}
	p, err := yaml.PathString("$." + key)
	if err != nil {
		return 0
	}
	n, err := p.ReadNode(bytes.NewReader(s.text))
	if err != nil || n.GetToken() == nil {
		return 0
	}
	return n.GetToken().Position.Line
}

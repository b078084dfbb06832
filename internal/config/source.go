package config

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Sources are where Parse gets bytes from, so that it does no I/O of its own.
type Sources struct {
	// ReadFile is os.ReadFile or a test's. Names in the configuration that are
	// relative are joined to the folder of the configuration first. nil refuses
	// every file.
	ReadFile func(name string) ([]byte, error)
	// Stat returns why a file that is only named here and read by others, such as
	// a geo database, cannot be one: it is not there, or a folder. nil believes
	// every name.
	Stat func(name string) error
	// Getenv is os.LookupEnv or a test's; nil knows no variable.
	Getenv func(name string) (string, bool)
}

// Load reads and validates a configuration file. The error is an Errors when the
// file could be read.
func Load(file string, src Sources) (*Config, error) {
	if src.ReadFile == nil {
		return nil, errors.New("load config: Sources.ReadFile is nil")
	}
	data, err := src.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("load config: %w", err)
	}
	return Parse(file, data, src)
}

// Parse validates a configuration. name is the file's name, for messages and for
// the folder that relative names start from. On error it returns nil and an
// Errors with every mistake. It keeps no reference to data, and may be called
// from any number of goroutines.
func Parse(name string, data []byte, src Sources) (*Config, error) {
	r := &reading{name: name, src: src, digest: fnv.New64a()}
	r.mix(string(data))
	root := r.document(data)
	if root == nil {
		return nil, r.finish()
	}
	top := &value{shape: fileKeys(), node: root}
	r.read(top)
	cfg := build(r, top)
	if len(r.errs) > 0 {
		return nil, r.finish()
	}
	cfg.File = name
	cfg.Hash = r.digest.Sum64()
	return cfg, nil
}

// mix adds a text to the hash, with its length so that no two sequences of texts
// are alike.
func (r *reading) mix(text string) {
	fmt.Fprintf(r.digest, "%d:", len(text))
	io.WriteString(r.digest, text)
}

// finish puts the mistakes in order and gives each its line of the file.
func (r *reading) finish() Errors {
	if len(r.lines) == 0 {
		r.lines = lines{""}
	}
	r.lines.hide(r.hidden)
	lengths := make(map[int]int)
	for _, e := range r.errs {
		e.Line = min(max(e.Line, 1), len(r.lines))
		length, ok := lengths[e.Line]
		if !ok {
			length = r.lines.length(e.Line)
			lengths[e.Line] = length
		}
		e.Column = min(max(e.Column, 1), length+1)
		e.Source = r.lines[e.Line-1]
	}
	all := r.errs.inOrder()
	if r.dropped > 0 {
		last := *all[len(all)-1]
		last.Path, last.Hint = "", ""
		last.Message = fmt.Sprintf("there are %d more mistakes, not listed", r.dropped)
		all = append(all, &last)
	}
	return all
}

// syntax reports a mistake in the YAML itself.
func (r *reading) syntax(line, column int, p *problem) {
	r.report(&yaml.Node{Line: line, Column: column}, "", p)
}

// document parses the YAML into nodes: exactly one document, within the limits.
func (r *reading) document(data []byte) *yaml.Node {
	if p := tooBig(data); p != nil {
		r.syntax(1, 1, p)
		return nil
	}
	text := string(data)
	if at, p := unreadable(text); p != nil {
		r.lines = splitLines(strings.ToValidUTF8(text, "�"))
		before := splitLines(text[:at])
		r.syntax(len(before), utf8.RuneCountInString(before[len(before)-1])+1, p)
		return nil
	}
	r.lines = splitLines(text)
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	root, err := decode(decoder)
	switch {
	case err == io.EOF || err == nil && isEmpty(root):
		r.syntax(1, 1, refuse("the file is empty: it needs at least sites"))
		return nil
	case err != nil:
		r.broken(err, text)
		return nil
	}
	second, err := decode(decoder)
	if err == nil {
		r.syntax(second.Line, second.Column, refuse("a second document begins here: one file is one configuration"))
		return nil
	}
	if err != io.EOF {
		r.broken(err, text)
		return nil
	}
	return root.Content[0]
}

func isEmpty(root *yaml.Node) bool {
	return len(root.Content) == 0 || root.Content[0].Kind == yaml.ScalarNode && root.Content[0].Tag == "!!null"
}

// decode reads the next document. A panic in the YAML library is an error here:
// a bad file must never cost what runs.
func decode(decoder *yaml.Decoder) (root *yaml.Node, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("yaml: the parser gave up: %v", p)
		}
	}()
	root = new(yaml.Node)
	return root, decoder.Decode(root)
}

// tooBig bounds what parsing can cost in memory before it begins.
func tooBig(data []byte) *problem {
	if len(data) > maxFile {
		return refuse("the file has %d bytes: at most %d are read", len(data), maxFile)
	}
	marks, breaks := 0, 0
	for _, c := range data {
		switch c {
		case ',', ':', '-', '[', '{', '?':
			marks++
		case '\n', '\r':
			breaks++
		}
	}
	if marks > maxMarks || breaks > maxMarks {
		return refuse("the file has too many values: move records into zone files")
	}
	return nil
}

// unreadable returns the place of the first byte that YAML does not allow.
func unreadable(text string) (at int, p *problem) {
	for i, r := range text {
		switch {
		case r == utf8.RuneError && strings.HasPrefix(text[i:], "�"):
			// The replacement character itself is a character like any other.
		case r == utf8.RuneError:
			return i, refuse("the file is not UTF-8 text: byte 0x%02x", text[i])
		case r == '\t' || r == '\n' || r == '\r' || r == 0x85:
		case r < ' ' || 0x7f <= r && r < 0xa0 || r == 0xfffe || r == 0xffff:
			return i, refuse("control characters (U+%04X) are not allowed", r)
		}
	}
	return 0, nil
}

// broken turns the YAML library's message into an Error.
func (r *reading) broken(err error, text string) {
	defer func() { // what could not be parsed may hold secrets anywhere
		for i := range r.lines {
			r.lines[i] = hideKeys(r.lines[i])
		}
	}()
	message, line := yamlMessage(err)
	line = min(max(line, 1), len(r.lines))
	if strings.HasPrefix(message, "unknown anchor") {
		// The name is not shown: it may be a secret that begins with *.
		message = "an alias (*name) has no anchor: write the value out, or in quotes if it begins with *"
	}
	if len(text) <= maxTraced {
		line = r.trace(err, line)
	}
	// The library counts the line of some mistakes from 0.
	for near := max(line-1, 1); near <= min(line+1, len(r.lines)); near++ {
		blank := r.lines[near-1][:indentOf(r.lines[near-1])]
		if tab := strings.IndexByte(blank, '\t'); tab >= 0 {
			r.syntax(near, tab+1, refuse("the line is indented with a tab: YAML wants spaces"))
			return
		}
	}
	r.syntax(line, indentOf(r.lines[line-1])+1, refuse("this is not YAML: %s", message))
}

// trace returns the first line with which the library refuses the file as it
// refuses all of it. The library itself names the line at which the surrounding
// mapping began, which can be the first of the file. fallback is for mistakes
// that only show at the end, such as a quote that is never closed.
func (r *reading) trace(whole error, fallback int) int {
	message, line := yamlMessage(whole)
	n := sort.Search(len(r.lines), func(n int) bool {
		decoder := yaml.NewDecoder(strings.NewReader(strings.Join(r.lines[:n+1], "\n") + "\n"))
		for {
			if _, err := decode(decoder); err != nil {
				m, l := yamlMessage(err)
				return err != io.EOF && m == message && l == line
			}
		}
	}) + 1
	for n < len(r.lines) && strings.TrimSpace(r.lines[n-1]) == "" {
		n++
	}
	if n >= len(r.lines) || strings.TrimSpace(strings.Join(r.lines[n:], "")) == "" && fallback > 1 {
		return fallback
	}
	return n
}

// yamlMessage splits the library's "yaml: line 3: message". The line is 0 when it
// names none.
func yamlMessage(err error) (message string, line int) {
	message = strings.TrimPrefix(err.Error(), "yaml: ")
	if after, ok := strings.CutPrefix(message, "line "); ok {
		if number, rest, ok := strings.Cut(after, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				return rest, n
			}
		}
	}
	return message, 0
}

// resolve joins a relative name to the folder of the configuration.
func (r *reading) resolve(name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(filepath.Dir(r.name), name)
}

// readFile reads a file that the configuration names, of at most most bytes.
func (r *reading) readFile(name string, most int) ([]byte, *problem) {
	if r.src.ReadFile == nil {
		return nil, refuse("%s cannot be read: no files here", clip(name))
	}
	data, err := r.src.ReadFile(r.resolve(name))
	switch {
	case err != nil:
		return nil, refuseRead(r.resolve(name), err)
	case len(data) > most:
		return nil, refuse("%s has %d bytes: at most %d are read", clip(name), len(data), most)
	}
	return data, nil
}

// refuseRead says why a file cannot be read. Errors of the system name the file
// themselves, and the call, which means nothing to an operator.
func refuseRead(name string, err error) *problem {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	return refuse("cannot read %s: %s", clip(name), oneLine(err.Error()))
}

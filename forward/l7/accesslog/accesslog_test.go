package accesslog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"
)

func sample() Entry {
	return Entry{
		Time: time.Date(2026, 11, 26, 18, 0, 1, 2e6, time.UTC), Took: 1500 * time.Microsecond,
		Client: netip.MustParseAddr("192.0.2.7"), Peer: netip.MustParseAddr("10.0.0.1"),
		Method: []byte("GET"), Target: []byte("/a\"b"), Query: []byte("q=1"), Host: []byte("www.test"), Proto: "HTTP/1.1",
		Status: 200, Up: 3, Down: 1024, Listener: ":80", Route: "www.test/", Service: "web", Backend: "10.0.1.10:8080",
		Referer: []byte("http://x/"), UserAgent: []byte("curl\xff\n"), RequestID: []byte("id7"),
	}
}

func TestFormats(t *testing.T) {
	for _, tt := range []struct {
		format Format
		want   string
	}{
		{Common, `192.0.2.7 - - [26/Nov/2026:18:00:01 +0000] "GET /a\"b?q=1 HTTP/1.1" 200 1024`},
		{Combined, `192.0.2.7 - - [26/Nov/2026:18:00:01 +0000] "GET /a\"b?q=1 HTTP/1.1" 200 1024 "http://x/" "curl\xff\x0a"`},
		{JSON, `{"time":"2026-11-26T18:00:01.002Z","client":"192.0.2.7","peer":"10.0.0.1","method":"GET","host":"www.test","path":"/a\"b","query":"q=1",` +
			`"protocol":"HTTP/1.1","status":200,"bytes_in":3,"bytes_out":1024,"seconds":0.001500,"listener":":80","route":"www.test/","service":"web",` +
			`"backend":"10.0.1.10:8080","referer":"http://x/","user_agent":"curl\ufffd\u000a","request_id":"id7"}`},
	} {
		e := sample()
		if got := string(appendEntry(nil, tt.format, &e)); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

// TestNotUnderstood: a request of which only a part came, or nothing that makes sense, is written as Apache httpd and nginx do.
func TestNotUnderstood(t *testing.T) {
	for line, want := range map[string]string{
		"": `"-"`, "GARBAGE": `"GARBAGE"`, "GET /a\"b HTTP/9.9": `"GET /a\"b HTTP/9.9"`, "\x16\x03\x01": `"\x16\x03\x01"`,
	} {
		e := Entry{Time: sample().Time, Client: sample().Client, Peer: sample().Client, Line: []byte(line), Status: 400, Down: 7}
		if got, want := string(appendEntry(nil, Combined, &e)), `192.0.2.7 - - [26/Nov/2026:18:00:01 +0000] `+want+` 400 7 "-" "-"`; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		var members map[string]any
		if err := json.Unmarshal(appendEntry(nil, JSON, &e), &members); err != nil {
			t.Fatal(err)
		}
		if got, _ := members["line"].(string); got != line || members["method"] != nil || members["protocol"] != nil {
			t.Errorf("%q: got %v", line, members)
		}
	}
}

// FuzzEntry: whatever a client sends stays one line, and valid JSON that says the same.
func FuzzEntry(f *testing.F) {
	f.Add([]byte("a\"\\\n\x00\xff\u2028\U0001F600"))
	f.Fuzz(func(t *testing.T, v []byte) {
		e := sample()
		e.Target, e.UserAgent, e.Line = v, v, v
		for _, format := range []Format{JSON, Common, Combined} {
			line := appendEntry(nil, format, &e)
			if bytes.ContainsAny(line, "\n\r\x00") || !utf8.Valid(line) {
				t.Fatalf("%q is not one line", line)
			}
			if format != JSON {
				continue
			}
			var out map[string]any
			if err := json.Unmarshal(line, &out); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if got, want := out["path"], string(bytes.ToValidUTF8(v, []byte("\ufffd"))); len(v) > 0 && utf8.Valid(v) && got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
	})
}

// run runs a log until stop is called.
func run(l *Log) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	return func() { cancel(); <-done }
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "access.log")
	l, err := Open(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := sample()
	l.Append(Common, &e)
	l.write()
	if err := os.Rename(name, name+".1"); err != nil {
		t.Fatal(err)
	}
	l.Append(Common, &e)
	l.write() // still into the old one
	l.Reopen()
	l.Append(Common, &e)
	stop := run(l)
	stop()
	for file, want := range map[string]int{name + ".1": 2, name: 1} {
		data, err := os.ReadFile(file)
		if err != nil || strings.Count(string(data), "\n") != want {
			t.Errorf("%s: got %q, %v, want %d lines", file, data, err, want)
		}
	}
}

// TestFull: when nothing is written, memory stays bounded, nobody waits, and drops are counted.
func TestFull(t *testing.T) {
	l, err := Open("/dev/full", nil)
	if err != nil {
		t.Skip(err)
	}
	e := sample()
	e.Target = bytes.Repeat([]byte("x"), 8000)
	for range 2 * maxBuffer / 8000 {
		l.Append(JSON, &e)
	}
	lines, dropped, _ := l.Stats()
	if lines == 0 || dropped == 0 || len(l.waiting) > maxBuffer+10_000 {
		t.Errorf("%d lines, %d dropped, %d bytes wait", lines, dropped, len(l.waiting))
	}
	l.write()
	l.Append(JSON, &e)
	l.write()
	if _, _, failed := l.Stats(); failed != 2 {
		t.Errorf("%d failures, want 2", failed)
	}
	l.Close()
	if _, err := Open(t.TempDir()+"/none/x", nil); err == nil {
		t.Error("a file in no folder was opened")
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	l := &Log{wake: make(chan struct{}, 1), waiting: make([]byte, 0, 2*maxBuffer)}
	e := sample()
	if n := testing.AllocsPerRun(100, func() { l.Append(JSON, &e) }); n > 1 {
		t.Errorf("got %v allocations, want at most one (of bytes that are not UTF-8)", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	l := &Log{wake: make(chan struct{}, 1), waiting: make([]byte, 0, 2*maxBuffer)}
	e := sample()
	b.ReportAllocs()
	for b.Loop() {
		if len(l.waiting) > maxBuffer/2 {
			l.waiting = l.waiting[:0]
		}
		l.Append(JSON, &e)
	}
}

// TestNamedPipe: a pipe that nobody reads from is an error, not a wait; one that somebody reads from is written.
func TestNamedPipe(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		_, err := Open(name, nil)
		opened <- err
	}()
	select {
	case err := <-opened:
		if err == nil || !strings.Contains(err.Error(), "nobody reads") {
			t.Errorf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for a reader")
	}
	reader, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	l, err := Open(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := sample()
	l.Append(Common, &e)
	run(l)()
	line, err := bufio.NewReader(reader).ReadString('\n')
	if err != nil || line == "" {
		t.Errorf("read %q, %v", line, err)
	}
}

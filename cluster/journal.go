package cluster

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// quietFor is how long a complaint is not repeated in the log.
	quietFor = 10 * time.Second
	// maxComplaints bounds the different complaints that are told apart.
	maxComplaints = 64
)

// journal takes memberlist's log lines. It counts what they complain of, since
// memberlist has no other way to say that a packet was refused, and logs each
// kind of complaint at most once in quietFor.
type journal struct {
	// Immutable.
	log     *slog.Logger
	meters  *meters
	reasons [][2]string

	mu         sync.Mutex // guards complaints and what it points to
	complaints map[string]*complaint
}

// complaint is one kind of log line.
type complaint struct {
	last       time.Time
	suppressed int
}

func newJournal(log *slog.Logger, m *meters) *journal {
	return &journal{log: log, meters: m, reasons: complaintReasons(), complaints: make(map[string]*complaint)}
}

// complaintReasons maps what memberlist's lines contain to reasons of
// meters.dropped; the first that matches counts. A test pins the wording.
func complaintReasons() [][2]string {
	return [][2]string{
		{"no installed keys could decrypt", dropKey},
		{"encryption is configured but remote state is not encrypted", dropKey},
		{"remote state is encrypted and encryption is not configured", dropKey},
		{"unacceptable label", dropLabel},
		{"handler queue full", dropQueue},
		{"Decrypt packet failed", dropMalformed},
		{"ailed to decode", dropMalformed},
		{"ailed to decompress", dropMalformed},
		{"cannot decode label", dropMalformed},
		{"label header", dropMalformed},
		{"not supported", dropMalformed},
		{"invalid checksum", dropMalformed},
		{"missing message type", dropMalformed},
		{"nvalid msgType", dropMalformed},
		{"exceeds limit", dropOversize},
		{"larger than limit", dropOversize},
		{"failed to receive", dropMalformed},
		{"Failed to read remote state", dropMalformed},
		{"Failed to receive user message", dropMalformed},
		{"Too many pending push/pull", dropStreams},
	}
}

// Write implements io.Writer for log.Logger: p is one line.
func (j *journal) Write(p []byte) (int, error) {
	level, text := splitLevel(strings.TrimSpace(string(p)))
	if level > slog.LevelDebug {
		j.count(text)
	}
	if !j.log.Enabled(context.Background(), level) {
		return len(p), nil
	}
	if level == slog.LevelDebug {
		j.log.Debug("membership protocol", "text", text)
		return len(p), nil
	}
	if suppressed, ok := j.admit(kindOf(text), time.Now()); ok {
		j.log.Log(context.Background(), level, "membership protocol", "text", text, "suppressed", suppressed)
	}
	return len(p), nil
}

func (j *journal) count(text string) {
	if strings.HasPrefix(text, "Push/Pull with") {
		j.meters.exchanges.WithLabelValues("failed").Inc()
		return
	}
	for _, r := range j.reasons {
		if strings.Contains(text, r[0]) {
			j.meters.dropped.WithLabelValues(r[1]).Inc()
			return
		}
	}
}

// admit says whether a line of this kind may be logged at now, and how many
// were not since the last one.
func (j *journal) admit(kind string, now time.Time) (suppressed int, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := j.complaints[kind]
	if c == nil {
		if len(j.complaints) >= maxComplaints {
			kind = ""
			c = j.complaints[kind]
		}
		if c == nil {
			c = &complaint{}
			j.complaints[kind] = c
		}
	}
	if !c.last.IsZero() && now.Sub(c.last) < quietFor {
		c.suppressed++
		return 0, false
	}
	suppressed, c.suppressed, c.last = c.suppressed, 0, now
	return suppressed, true
}

// splitLevel takes "[LEVEL] memberlist: " off a line. memberlist calls an error
// what anybody can provoke from outside, so errors are warnings here.
func splitLevel(line string) (slog.Level, string) {
	level := slog.LevelDebug
	switch {
	case strings.HasPrefix(line, "[WARN]"), strings.HasPrefix(line, "[ERR"):
		level = slog.LevelWarn
	case strings.HasPrefix(line, "[INFO]"):
		level = slog.LevelInfo
	}
	if _, rest, ok := strings.Cut(line, "] "); ok {
		line = rest
	}
	return level, strings.TrimPrefix(line, "memberlist: ")
}

// kindOf reduces a line to its first words, up to anything that varies.
func kindOf(text string) string {
	const words = 4
	fields := strings.Fields(text)
	kept := fields[:0]
	for _, f := range fields {
		if len(kept) == words || strings.ContainsAny(f, "0123456789'\"=(") {
			break
		}
		kept = append(kept, f)
	}
	return strings.Join(kept, " ")
}

package engine

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/pprof"
	"slices"
	"sync"

	gobgplog "github.com/osrg/gobgp/v3/pkg/log"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// journal is GoBGP's logger. GoBGP's events carry no reason for a lost or refused session; its log does, so the journal
// keeps the last one per neighbor. The messages matched are those of the pinned version; tests hold them to it.
//
// GoBGP calls it while holding locks: it must never call the server.
type journal struct {
	log   *slog.Logger
	fatal func(string)
	freed chan struct{} // capacity 1: a session's goroutine ended

	mu      sync.Mutex // guards the rest
	alive   int        // goroutines of sessions
	reasons map[netip.Addr]string
	keys    map[netip.Addr]string // MD5 keys that the listener refused

	refused   uint64       // connections of strangers
	strangers []netip.Addr // who connected without being a neighbor; the newest last
}

// maxStrangers is how many of them are remembered.
const maxStrangers = 16

func (j *journal) stranger(a netip.Addr) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.refused++
	j.strangers = append(slices.DeleteFunc(j.strangers, func(b netip.Addr) bool { return a == b }), a)
	if len(j.strangers) > maxStrangers {
		j.strangers = j.strangers[1:]
	}
}

// Strangers are the last addresses that connected without being a neighbor, the newest last.
func (e *Engine) Strangers() []netip.Addr {
	e.journal.mu.Lock()
	defer e.journal.mu.Unlock()
	return slices.Clone(e.journal.strangers)
}

// Refused counts the connections of strangers.
func (e *Engine) Refused() uint64 {
	e.journal.mu.Lock()
	defer e.journal.mu.Unlock()
	return e.journal.refused
}

// maxReasons bounds the journal; more neighbors than this keep no reason.
const maxReasons = 1024

func newJournal(log *slog.Logger, fatal func(string)) *journal {
	return &journal{
		log: log, fatal: fatal, freed: make(chan struct{}, 1),
		reasons: map[netip.Addr]string{}, keys: map[netip.Addr]string{},
	}
}

// started counts a session's goroutine.
func (j *journal) started() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.alive++
}

// awaitFreed waits until the goroutines of all sessions ended, or ctx does.
func (j *journal) awaitFreed(ctx context.Context) {
	for {
		j.mu.Lock()
		alive := j.alive
		j.mu.Unlock()
		if alive <= 0 {
			return
		}
		select {
		case <-j.freed:
		case <-ctx.Done():
			return
		}
	}
}

func (j *journal) lastError(a netip.Addr) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.reasons[a]
}

func (j *journal) forget(a netip.Addr) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.reasons, a)
}

func (j *journal) note(a netip.Addr, reason string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, ok := j.reasons[a]; ok || len(j.reasons) < maxReasons {
		j.reasons[a] = reason
	}
}

// takeKeyFailure returns and forgets why the listener refused a neighbor's MD5 key.
func (j *journal) takeKeyFailure(a netip.Addr) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	reason := j.keys[a]
	delete(j.keys, a)
	return reason
}

// observe keeps what a message says about a neighbor.
func (j *journal) observe(message string, fields gobgplog.Fields) {
	key, _ := fields["Key"].(string)
	a, err := netip.ParseAddr(key)
	if in, errPrefix := netip.ParsePrefix(key); err != nil && errPrefix == nil {
		j.observeRange(message, in, fields)
	}
	if err != nil {
		return
	}
	mark(key)
	switch message {
	case "Accepted a new dynamic neighbor":
		j.started()
	case "freed fsm.h":
		j.mu.Lock()
		j.alive--
		j.mu.Unlock()
		signal(j.freed)
	case "failed to set md5":
		j.mu.Lock()
		defer j.mu.Unlock()
		if len(j.keys) < maxReasons {
			j.keys[a] = fmt.Sprint(fields["Err"])
		}
	case "Can't find configuration for a new passive connection":
		j.stranger(a)
	case "Mismatched local address":
		j.note(a, fmt.Sprintf("it connects to %v, not to %v", fields["Addr"], fields["Configured addr"]))
	case "failed to connect":
		j.note(a, fmt.Sprintf("connect: %v", fields["Error"]))
	case "sent notification":
		j.note(a, sentNotification(fields))
	case "received notification":
		code, _ := fields["Code"].(uint8)
		subcode, _ := fields["Subcode"].(uint8)
		j.note(a, "it refused: "+bgp.NewNotificationErrorCode(code, subcode).String())
	case "hold timer expired":
		j.note(a, "hold timer expired")
	case "Peer Down":
		// The notification, if there was one, says more.
		if reason := fmt.Sprint(fields["Reason"]); reason == "read-failed" || reason == "write-failed" {
			j.note(a, "connection closed")
		}
	case "Session will be reset due to malformed BGP Header",
		"Session will be reset due to malformed BGP message":
		j.note(a, fmt.Sprintf("malformed message: %v", fields["Error"]))
	case "Session will be reset due to malformed BGP update message":
		j.note(a, fmt.Sprintf("malformed update: %v", fields["error"]))
	}
}

// sentNotification says why we ended a session: GoBGP tells it in two ways.
func sentNotification(fields gobgplog.Fields) string {
	code, ok := fields["Code"].(uint8)
	subcode, _ := fields["Subcode"].(uint8)
	switch {
	case !ok:
		return fmt.Sprintf("refused it: %v", fields["Data"])
	case code == bgp.BGP_ERROR_HOLD_TIMER_EXPIRED:
		return "hold timer expired"
	}
	return "refused it: " + bgp.NewNotificationErrorCode(code, subcode).String()
}

// observeRange keeps what a message says about a range.
func (j *journal) observeRange(message string, in netip.Prefix, fields gobgplog.Fields) {
	if message != "failed to set md5" {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.keys) < maxReasons {
		j.keys[in.Addr()] = fmt.Sprint(fields["Err"])
	}
}

// write passes a message on. GoBGP's informational chatter is our debug.
func (j *journal) write(level slog.Level, message string, fields gobgplog.Fields) {
	j.observe(message, fields)
	if !j.log.Enabled(context.Background(), level) {
		return
	}
	attrs := make([]any, 0, 2*len(fields))
	for _, k := range []string{"Key", "State", "Error", "Err", "Reason", "Code", "Subcode"} {
		if v, ok := fields[k]; ok {
			attrs = append(attrs, slog.String(k, fmt.Sprint(v)))
		}
	}
	j.log.Log(context.Background(), level, "gobgp: "+message, attrs...)
}

// Panic implements GoBGP's Logger.
func (j *journal) Panic(message string, fields gobgplog.Fields) { j.Fatal(message, fields) }

// Fatal implements GoBGP's Logger.
func (j *journal) Fatal(message string, fields gobgplog.Fields) {
	j.write(slog.LevelError, message, fields)
	if j.fatal != nil {
		j.fatal(message)
	}
}

// Error implements GoBGP's Logger.
func (j *journal) Error(message string, fields gobgplog.Fields) {
	j.write(slog.LevelError, message, fields)
}

// Warn implements GoBGP's Logger.
func (j *journal) Warn(message string, fields gobgplog.Fields) {
	j.write(slog.LevelDebug, message, fields)
}

// Info implements GoBGP's Logger.
func (j *journal) Info(message string, fields gobgplog.Fields) {
	j.write(slog.LevelDebug, message, fields)
}

// Debug implements GoBGP's Logger.
func (j *journal) Debug(message string, fields gobgplog.Fields) {
	j.observe(message, fields)
}

// SetLevel implements GoBGP's Logger; the level is fixed.
func (j *journal) SetLevel(gobgplog.LogLevel) {}

// GetLevel implements GoBGP's Logger. Dial errors are only told at this level.
func (j *journal) GetLevel() gobgplog.LogLevel { return gobgplog.DebugLevel }

// The labels of a session's goroutines: when one of them crashes, the traceback says whose it was.
const (
	// PeerLabel is the label's name, its value the neighbor's address.
	PeerLabel = "peer"
	// SessionFrame is in the stack of a goroutine that belongs to one session.
	SessionFrame = "server.(*fsmHandler)."
)

// mark labels the calling goroutine. GoBGP logs with the neighbor's address before it starts the goroutines of a
// session, which inherit the label, and they log themselves.
func mark(neighbor string) {
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels(PeerLabel, neighbor)))
}

package lab

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A FaultKind names what is done to the fleet.
type FaultKind string

// The faults and their cures.
const (
	FaultCut      FaultKind = "cut"       // A B [one-way]: nothing gets through
	FaultDrop     FaultKind = "drop"      // A B 20% [one-way]: a share of the packets is lost
	FaultIsolate  FaultKind = "isolate"   // A: cut from every other node, backend and client
	FaultHeal     FaultKind = "heal"      // [A [B]]: links again; without a name everything is well again
	FaultKill     FaultKind = "kill"      // NODE: kill -9
	FaultFreeze   FaultKind = "freeze"    // NODE: SIGSTOP
	FaultThaw     FaultKind = "thaw"      // NODE: SIGCONT
	FaultRestart  FaultKind = "restart"   // NODE: stopped in order if it runs, and started
	FaultWipe     FaultKind = "wipe"      // NODE: killed, its state deleted, and started
	FaultFillDisk FaultKind = "fill-disk" // NODE: no byte is free for its state
	FaultFreeDisk FaultKind = "free-disk" // NODE
	FaultClock    FaultKind = "clock"     // NODE +1h: its wall clock is off by this; 0s = right
	FaultBackend  FaultKind = "backend"   // ADDRESS:PORT|SITE|SERVICE@SITE down|up
)

// A Fault is one command to the lab. Its text form is the one of the command
// line and of scenarios: "cut fra iad one-way", "clock fra1 +1h".
type Fault struct {
	Kind    FaultKind
	A, B    string // places; B only for cut, drop and heal
	OneWay  bool
	Percent int           // for drop, 1 … 100
	Offset  time.Duration // for clock, whole seconds
	Up      bool          // for backend
}

// maxOffset is how far a clock can be off: a century.
const maxOffset = 100 * 365 * 24 * time.Hour

// faultUsage is how each fault is written.
var faultUsage = []struct {
	kind FaultKind
	args string
}{
	{FaultCut, "A B [one-way]"},
	{FaultDrop, "A B PERCENT% [one-way]"},
	{FaultIsolate, "A"},
	{FaultHeal, "[A [B]]"},
	{FaultKill, "NODE"},
	{FaultFreeze, "NODE"},
	{FaultThaw, "NODE"},
	{FaultRestart, "NODE"},
	{FaultWipe, "NODE"},
	{FaultFillDisk, "NODE"},
	{FaultFreeDisk, "NODE"},
	{FaultClock, "NODE OFFSET"},
	{FaultBackend, "ADDRESS:PORT|SITE|SERVICE@SITE down|up"},
}

// ParseFault reads the words of one fault. Whether the places exist is not
// looked at here.
func ParseFault(words []string) (Fault, error) {
	if len(words) == 0 {
		return Fault{}, errors.New("say what to do: " + faultNames())
	}
	f := Fault{Kind: FaultKind(words[0])}
	at := slices.IndexFunc(faultUsage, func(u struct {
		kind FaultKind
		args string
	},
	) bool {
		return u.kind == f.Kind
	})
	if at < 0 {
		return Fault{}, fmt.Errorf("%q is nothing that the lab does; it does %s", words[0], faultNames())
	}
	if err := f.parse(words[1:]); err != nil {
		return Fault{}, fmt.Errorf("%s: %w (write: %s %s)", f.Kind, err, f.Kind, faultUsage[at].args)
	}
	return f, nil
}

func faultNames() string {
	names := make([]string, len(faultUsage))
	for i, u := range faultUsage {
		names[i] = string(u.kind)
	}
	return strings.Join(names, ", ")
}

// parse reads what follows the kind.
func (f *Fault) parse(args []string) error {
	if n := len(args); n > 0 && args[n-1] == "one-way" && (f.Kind == FaultCut || f.Kind == FaultDrop) {
		f.OneWay, args = true, args[:n-1]
	}
	least, most := 1, 1
	switch f.Kind {
	case FaultCut, FaultClock, FaultBackend:
		least, most = 2, 2
	case FaultDrop:
		least, most = 3, 3
	case FaultHeal:
		least, most = 0, 2
	}
	if len(args) < least || len(args) > most {
		return fmt.Errorf("%d names or values, want %s", len(args), map[bool]string{true: "more", false: "fewer"}[len(args) < least])
	}
	for _, a := range args {
		if a == "" || strings.ContainsAny(a, " \t\r\n\"#") {
			return fmt.Errorf("%q is no name", a)
		}
	}
	if len(args) > 0 {
		f.A = args[0]
	}
	var err error
	switch f.Kind {
	case FaultCut, FaultDrop, FaultHeal:
		if len(args) > 1 {
			f.B = args[1]
		}
		if f.A != "" && f.A == f.B {
			return fmt.Errorf("%s and %s are the same", f.A, f.B)
		}
		if f.Kind == FaultDrop {
			f.Percent, err = parsePercent(args[2])
		}
	case FaultClock:
		f.Offset, err = parseOffset(args[1])
	case FaultBackend:
		f.Up = args[1] == "up"
		if !f.Up && args[1] != "down" {
			err = fmt.Errorf("%q: want down or up", args[1])
		}
	}
	return err
}

func parsePercent(text string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSuffix(text, "%"))
	if err != nil || n < 1 || n > 100 {
		return 0, fmt.Errorf("%q: want 1%% … 100%%", text)
	}
	return n, nil
}

// parseOffset reads a duration, with days (d) and years of 365 days (y) besides
// Go's units: "+1h", "-1y".
func parseOffset(text string) (time.Duration, error) {
	bad := fmt.Errorf("%q: want an offset in whole seconds, up to 100 years: +90s, -1h, +30d, -1y", text)
	body := strings.TrimPrefix(text, "+")
	for unit, length := range map[string]time.Duration{"d": 24 * time.Hour, "y": 365 * 24 * time.Hour} {
		if n, err := strconv.ParseInt(strings.TrimSuffix(body, unit), 10, 32); err == nil && strings.HasSuffix(body, unit) {
			if n > int64(maxOffset/length) || -n > int64(maxOffset/length) {
				return 0, bad
			}
			return time.Duration(n) * length, nil
		}
	}
	d, err := time.ParseDuration(body)
	if err != nil || d%time.Second != 0 || d > maxOffset || d < -maxOffset {
		return 0, bad
	}
	return d, nil
}

// String writes what ParseFault reads.
func (f Fault) String() string {
	words := []string{string(f.Kind)}
	for _, name := range []string{f.A, f.B} {
		if name != "" {
			words = append(words, name)
		}
	}
	switch f.Kind {
	case FaultDrop:
		words = append(words, strconv.Itoa(f.Percent)+"%")
	case FaultClock:
		text := f.Offset.String()
		if f.Offset > 0 {
			text = "+" + text
		}
		words = append(words, text)
	case FaultBackend:
		words = append(words, map[bool]string{true: "up", false: "down"}[f.Up])
	}
	if f.OneWay {
		words = append(words, "one-way")
	}
	return strings.Join(words, " ")
}

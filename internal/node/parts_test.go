package node

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// failure is what the node is told.
func failure(t *testing.T, p *parts) error {
	t.Helper()
	select {
	case err := <-p.failed:
		return err
	case <-time.After(patience):
		t.Fatal("nobody was told")
		return nil
	}
}

// Who ends without being asked has failed, with or without an error.
func TestPartsThatEndByThemselves(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"with an error", broken, "part: broken"},
		{"without one", nil, "part: ended by itself"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newParts(slog.New(slog.DiscardHandler))
			p.start("part", func(context.Context) error { return tt.err })
			p.start("second", func(context.Context) error { return nil }) // must not block on the first
			p.start("other", func(ctx context.Context) error { <-ctx.Done(); return nil })
			for _, c := range p.running[:2] {
				<-c.done
			}
			err := failure(t, p)
			if !strings.Contains(err.Error(), "part: ") && !strings.Contains(err.Error(), "second: ") {
				t.Errorf("got %v, want the name of who ended", err)
			}
			p.stopAll(patience)
		})
		t.Run(tt.name+", alone", func(t *testing.T) {
			p := newParts(slog.New(slog.DiscardHandler))
			p.start("part", func(context.Context) error { return tt.err })
			if err := failure(t, p); err.Error() != tt.want || tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// Who is stopped has not failed, whatever it returns; the newest stops first.
func TestPartsStop(t *testing.T) {
	p := newParts(slog.New(slog.DiscardHandler))
	var ended []string
	for _, name := range []string{"first", "second", "third"} {
		p.start(name, func(ctx context.Context) error {
			<-ctx.Done()
			ended = append(ended, name) // one at a time: that is what is tested, under -race
			if name == "first" {
				return nil
			}
			return ctx.Err()
		})
	}
	p.stop(patience, "second")
	p.stopAll(patience)
	if got := strings.Join(ended, " "); got != "second third first" {
		t.Errorf("stopped %q, want the named one, then the newest first", got)
	}
	select {
	case err := <-p.failed:
		t.Errorf("a stop counts as a failure: %v", err)
	default:
	}
}

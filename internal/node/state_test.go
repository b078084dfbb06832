package node

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func testState(t testing.TB, dir string) *stateDir {
	t.Helper()
	s, err := openState(dir, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

func TestEpochAlwaysGrows(t *testing.T) {
	dir := t.TempDir()
	s := testState(t, dir)
	now := time.Unix(1_700_000_000, 0)
	var last uint64
	for i, at := range []time.Time{now, now, now.Add(-1000 * time.Hour), now.Add(time.Hour), {}} {
		epoch := s.nextEpoch(at)
		if epoch <= last {
			t.Errorf("start %d: epoch %d, want more than %d", i, epoch, last)
		}
		last = epoch
	}
}

// An epoch that is not whole is not trusted: a number that was cut off is a smaller one.
func TestEpochSurvivesCorruptFile(t *testing.T) {
	for _, content := range []string{"garbage\n", "", "18", "1800000000", "-1\n", "4611686018427387904\n"} {
		dir := t.TempDir()
		s := testState(t, dir)
		file := filepath.Join(dir, epochFile)
		write(t, file, content)
		if epoch := s.nextEpoch(time.Unix(1_700_000_000, 0)); epoch != 1_700_000_000 {
			t.Errorf("%q: got %d, want the clock's 1700000000", content, epoch)
		}
		if kept, err := os.ReadFile(file + ".corrupt"); err != nil || string(kept) != content || s.damaged.Load() != 1 {
			t.Errorf("%q: kept %q, %v, %d counted", content, kept, err, s.damaged.Load())
		}
	}
}

// What is there and cannot be read is kept: what is saved next would destroy it.
func TestUnreadableStateIsSetAside(t *testing.T) {
	dir := t.TempDir()
	s := testState(t, dir)
	file := filepath.Join(dir, overridesFile)
	spoil(t, file) // root may read whatever can be read
	if got := s.restoreOverrides(); got != nil {
		t.Errorf("restored %v", got)
	}
	if err := s.replace(overridesFile, []byte("new")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(file+".corrupt", "x")); err != nil {
		t.Error(err)
	}
}

func TestStateFolderIsLocked(t *testing.T) {
	dir := t.TempDir()
	testState(t, dir)
	_, err := openState(dir, nil, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "another pharos uses it") {
		t.Errorf("second open: got %v, want a refusal", err)
	}
}

func TestReplaceLeavesNoRest(t *testing.T) {
	dir := t.TempDir()
	s := testState(t, dir)
	for _, text := range []string{"one", "two"} {
		if err := s.replace(viewFile, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := string(s.load(viewFile)); got != text {
			t.Errorf("got %q, want %q", got, text)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 { // the lock and the view
		t.Errorf("got %d files (%v), want 2", len(entries), err)
	}
}

func TestSaverWritesTheNewest(t *testing.T) {
	s := testState(t, t.TempDir())
	w := newSaver(s, viewFile)
	for _, text := range []string{"one", "two", "three"} {
		w.put([]byte(text), 0) // nobody reads yet: must not block
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := string(s.load(viewFile)); got != "three" {
		t.Errorf("got %q, want the newest", got)
	}
}

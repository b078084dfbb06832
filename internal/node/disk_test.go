package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// spoil has every write of a state file fail, whoever asks, until it is removed:
// a folder with something in it cannot be replaced by a file.
func spoil(t *testing.T, file string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(file, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// repair ends what spoil did.
func repair(t *testing.T, file string) {
	t.Helper()
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
}

// smallDisk is a file system of its own of 64 KiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("a file system can be mounted by root only: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes what is left of a disk; calling the result frees it again.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	file := filepath.Join(dir, "filler")
	err := os.WriteFile(file, bytes.Repeat([]byte("x"), 1<<20), 0o600)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	return func() { repair(t, file) }
}

// protect makes a disk read-only; calling the result undoes it.
func protect(t *testing.T, dir string) (free func()) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := syscall.Mount("tmpfs", dir, "", syscall.MS_REMOUNT, "size=64k"); err != nil {
			t.Error(err)
		}
	}
}

var badDisks = map[string]func(t *testing.T, dir string) (free func()){"full": fill, "read-only": protect}

// A disk that takes nothing costs durability and nothing else: the node starts,
// with an epoch above the last, and with what is on disk; and when the disk is
// back, all is made good.
func TestStateOnABadDisk(t *testing.T) {
	for name, spoilDisk := range badDisks {
		t.Run(name, func(t *testing.T) {
			dir := smallDisk(t)
			first := testState(t, dir)
			if got := first.nextEpoch(time.Unix(100, 0)); got != 100 || first.refused() != 0 {
				t.Fatalf("epoch %d, %d refused", got, first.refused())
			}
			first.close()
			if err := os.Remove(filepath.Join(dir, lockFile)); err != nil {
				t.Fatal(err)
			}
			free := spoilDisk(t, dir)

			s, err := openState(dir, nil, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatalf("the disk's fault stops the start: %v", err)
			}
			defer s.close()
			if got := s.nextEpoch(time.Unix(50, 0)); got != 101 {
				t.Errorf("epoch %d, want one above the last", got)
			}
			if s.refused() == 0 || !strings.Contains(s.trouble().Error(), epochFile) {
				t.Errorf("%d refused, trouble %v; want the epoch to be named", s.refused(), s.trouble())
			}
			w := newSaver(s, overridesFile)
			if w.write(content{[]byte("x"), 1}) || isClosed(chanOf(w.saved)) {
				t.Error("what the disk refused counts as saved")
			}
			free()
			if !w.write(content{[]byte("y"), 2}) || <-w.saved != 2 {
				t.Error("not saved although the disk is back")
			}
			if s.refused() != 0 {
				t.Errorf("the disk is back, and still %v", s.trouble())
			}
			if got := strings.TrimSpace(string(s.load(epochFile))); got != "101" {
				t.Errorf("epoch on disk %q, want 101", got)
			}
			if _, err := openState(dir, nil, slog.New(slog.DiscardHandler)); err == nil {
				t.Error("the folder is not locked although the disk is back")
			}
		})
	}
}

// chanOf closes its result if there is something in ch, and takes nothing.
func chanOf(ch chan uint64) <-chan struct{} {
	out := make(chan struct{})
	if len(ch) > 0 {
		close(out)
	}
	return out
}

// A folder that cannot be one is the operator's fault, and stops the start.
func TestStateFolderThatIsNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	for _, path := range []string{file, filepath.Join(file, "in")} {
		if _, err := openState(path, nil, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "--state-dir") {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

// What the disk refused is tried again until it is taken or something newer is.
func TestSaverTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testState(t, t.TempDir())
		w := newSaver(s, overridesFile)
		file := filepath.Join(s.path, overridesFile)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		expect := func(what, text string, marks ...uint64) {
			t.Helper()
			synctest.Wait()
			if len(marks) != len(w.saved) || len(marks) > 0 && <-w.saved != marks[0] {
				t.Errorf("%s: saved %d marks, want %v", what, len(w.saved), marks)
			}
			if got, _ := os.ReadFile(file); string(got) != text {
				t.Errorf("%s: on disk %q, want %q", what, got, text)
			}
		}
		w.put([]byte("one"), 1)
		expect("a good disk", "one", 1)
		repair(t, file)
		spoil(t, file)
		w.put([]byte("two"), 2)
		expect("a bad disk", "")
		if s.trouble() == nil {
			t.Error("nothing is reported")
		}
		time.Sleep(10 * saveAgain)
		expect("still bad", "")
		w.put([]byte("three"), 3)
		expect("something newer", "")
		repair(t, file)
		time.Sleep(saveAgain)
		expect("good again", "three", 3)
		if s.trouble() != nil {
			t.Errorf("still reported: %v", s.trouble())
		}
		repair(t, file)
		time.Sleep(10 * saveAgain)
		expect("what was taken is not written again", "")
		spoil(t, file)
		w.put([]byte("four"), 4)
		synctest.Wait()
		repair(t, file)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		expect("the last try is at the end", "four", 4)
	})
}

// Orders and verdicts go on in memory while the disk takes nothing; the order is
// not acknowledged here until it does.
func TestOrdersOnABadDisk(t *testing.T) {
	dir := t.TempDir()
	b := bothUp(t, dir)
	file := filepath.Join(dir, overridesFile)
	spoil(t, file)
	spoil(t, filepath.Join(dir, epochFile))
	b.obeyed(t, ask(health.OrderDrain, "site/a"))
	b.saveOrders(t)
	if b.board.Load().Services[0].Sites[0].Eligible {
		t.Error("the order has no effect")
	}
	if got := b.acks.Load(); got.have != 0 {
		t.Errorf("acknowledged by %d although nobody has it on disk", got.have)
	}
	digest := b.acks.Load().digest
	other := b.upAtB(9)
	other.Overrides = digest
	b.inbox.deliver(other, 0)
	echo := health.NewReport("a1", b.setup.Topology.Layout)
	echo.Epoch = 900
	b.inbox.deliver(echo, 0)
	b.set(health.KindBackend, health.StatusDown)
	b.pass(time.Millisecond) // hears the echo
	b.pass(time.Millisecond) // answers it
	if got := b.acks.Load(); got.have != 1 {
		t.Errorf("acknowledged by %d, want by b1 alone", got.have)
	}
	if got := b.verdict(health.KindBackend, "a").Status; got != health.StatusDown {
		t.Errorf("the verdict is %s: health does not go on", got)
	}
	if last := b.gossip.published[len(b.gossip.published)-1]; last.Epoch != 901 || last.Overrides == digest {
		t.Errorf("reported epoch %d, overrides %x", last.Epoch, last.Overrides)
	}
	if got := b.state.refused(); got != 2 {
		t.Errorf("%d files refused, want 2", got)
	}
	repair(t, filepath.Join(dir, epochFile))
	repair(t, file)
	b.publishOrders() // as whatever comes next has it
	b.saveOrders(t)
	if got := b.acks.Load(); got.have != 2 || b.state.refused() != 0 {
		t.Errorf("the disk is back: acknowledged by %d, %d files refused", got.have, b.state.refused())
	}
}

// A whole node on a full disk serves, says so, and remembers once it can.
func TestNodeOnAFullDisk(t *testing.T) {
	t.Parallel()
	newBackend(t, "127.9.36.11:9000", "one", released())
	newBackend(t, "127.9.36.12:9000", "two", released())
	config := at("127.9.36.", strings.ReplaceAll(oneSite, "WAIT", "5s"))
	state := smallDisk(t)
	free := fill(t, state)
	r := start(t, nodeIn(t, filepath.Dir(state), config))
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })
	st, err := r.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(st.Degraded, "\n"), "state cannot be saved: ") || !strings.Contains(st.StateTrouble, epochFile) {
		t.Errorf("degraded %q, trouble %q", st.Degraded, st.StateTrouble)
	}
	if got := scrape(t, r); !strings.Contains(got, "\npharos_node_refused_state_files ") || strings.Contains(got, "\npharos_node_refused_state_files 0\n") {
		t.Error("the metrics do not show it")
	}
	drain := ask(health.OrderDrain, "backend/web/a/127.9.36.12:9000")
	drain.Local = true
	result, err := r.override(t.Context(), drain)
	if err != nil || result.Acknowledged != 0 {
		t.Fatalf("%+v, %v", result, err)
	}
	for range 4 {
		if code, body := get("127.9.36.80:8080"); code != http.StatusOK || body != "one" {
			t.Errorf("got %d %q from a drained backend", code, body)
		}
	}
	free()
	eventually(t, "the order is on disk", func() bool { return r.overrides(false).Acknowledged == 1 })
	eventually(t, "nothing is refused any more", func() bool { return r.Node.state.refused() == 0 })
	if got := r.Status().StateTrouble; got != "" {
		t.Errorf("still: %s", got)
	}
}

// scrape returns a node's metrics as text.
func scrape(t *testing.T, r *running) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.opts.Socket)
	}}}
	resp, err := client.Get("http://pharos/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

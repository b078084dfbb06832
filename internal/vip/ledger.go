package vip

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A ledger is the file that says which addresses are ours: a line with the interface, then one address a line.
type ledger struct{ file string }

const ledgerHead = "interface "

// read returns our addresses on an interface; without a file there are none. One that cannot be read is an error: taking
// nothing for ours would leave addresses behind for ever.
func (l ledger) read(iface string) (map[netip.Addr]bool, error) {
	out := map[netip.Addr]bool{}
	text, err := os.ReadFile(l.file)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read which VIPs are ours: %w", err)
	}
	s := bufio.NewScanner(bytes.NewReader(text))
	of := ""
	for n := 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if name, ok := strings.CutPrefix(line, ledgerHead); ok {
			of = name
			continue
		}
		a, err := netip.ParseAddr(line)
		if err != nil || of == "" || len(out) >= MaxAddresses {
			return nil, fmt.Errorf("%s:%d: %q does not belong there: take VIPs that are no longer wanted off the interface by hand, and remove the file", l.file, n, line)
		}
		out[a] = true
	}
	if of != "" && of != iface && len(out) > 0 {
		return nil, fmt.Errorf("%d VIPs are on %s, and now %s is configured: stop this node cleanly with the old configuration first, or take them off by hand and remove %s",
			len(out), of, iface, l.file)
	}
	return out, s.Err()
}

// write replaces the file; it is on disk when write returns.
func (l ledger) write(iface string, ours map[netip.Addr]bool) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%s\n", ledgerHead, iface)
	for _, a := range slices.SortedFunc(maps.Keys(ours), netip.Addr.Compare) {
		fmt.Fprintln(&b, a)
	}
	tmp := l.file + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b.Bytes())
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, l.file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(l.file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

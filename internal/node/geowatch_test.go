package node

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/pharos-lb/pharos/internal/admin"
)

// putGeo replaces the database by one in which clientNet is in a country, as
// tools do it: written beside it, then renamed.
func putGeo(t *testing.T, file, country string) {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "GeoLite2-Country", BuildEpoch: 1781725900})
	if err != nil {
		t.Fatal(err)
	}
	_, network, err := net.ParseCIDR("8.8.8.0/24")
	if err != nil {
		t.Fatal(err)
	}
	record := mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(country)}}
	if err := tree.Insert(network, record); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := tree.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	putFile(t, file, out.String())
}

func putFile(t *testing.T, file, text string) {
	t.Helper()
	write(t, file+".new", text)
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// geoNode serves two sites, Frankfurt and Singapore, by a database of its own.
func geoNode(t *testing.T, network string) (n *Node, config, database string) {
	t.Helper()
	dir := t.TempDir()
	database = filepath.Join(dir, "geo.mmdb")
	putGeo(t, database, "DE")
	// Nothing is probed twice, so that nothing is known and nothing excluded.
	config = at(network, edit(t, fleet, "WAIT", "100ms", "every: 200ms", "every: 1m", "recheck: 50ms", "recheck: 1m")) + "geo: {databases: geo.mmdb}\n"
	return nodeIn(t, dir, config), config, database
}

// sentTo is the VIP that a client in the database's network gets.
func (r *running) sentTo(t *testing.T) string {
	t.Helper()
	e, err := r.client.Explain(t.Context(), admin.ExplainRequest{Name: "www.t.test", From: netip.MustParseAddr("8.8.8.8")})
	if err != nil || len(e.Answer) != 1 {
		t.Fatalf("explain: %v, %v", e, err)
	}
	return e.Answer[0].String()
}

// A database that is replaced right after it was read is taken up, although
// what is in the configuration's file by then is not fit to be, or not asked to be.
func TestReplacedGeoIsTakenUp(t *testing.T) {
	t.Parallel()
	n, config, database := geoNode(t, "127.9.51.")
	const germany, asia = "127.9.51.80", "127.9.51.90"
	putGeo(t, database, "SG") // before anybody could look at it again
	r := start(t, n)
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })
	if got := r.sentTo(t); got != germany {
		t.Fatalf("client in Germany is sent to %s, want %s", got, germany)
	}
	hash, loaded := hashText(r.setup.Load().Config.Hash), r.setup.Load().Loaded
	write(t, r.file, "sites: [") // and this must not matter
	eventually(t, "the new database is in use", func() bool { return r.sentTo(t) == asia })

	// Not reloaded: what the file says now must not be in force.
	write(t, r.file, edit(t, config, germany, "127.9.51.70"))
	putGeo(t, database, "DE")
	if err := r.reloadGeo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.sentTo(t); got != germany {
		t.Errorf("client is sent to %s after the second replacement, want %s", got, germany)
	}
	st, err := r.client.Status(t.Context())
	if err != nil || st.Config.Hash != hash || !st.Config.Loaded.Equal(loaded) {
		t.Errorf("the configuration in force changed: hash %s, want %s (%v)", st.Config.Hash, hash, err)
	}
}

// What is not a database costs nothing that was there.
func TestCorruptGeoIsRefused(t *testing.T) {
	t.Parallel()
	n, _, database := geoNode(t, "127.9.52.")
	r := start(t, n)
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })
	before := r.sentTo(t)
	putFile(t, database, "rubbish")
	if err := r.reloadGeo(t.Context()); err == nil {
		t.Fatal("rubbish was taken")
	}
	if got := r.sentTo(t); got != before {
		t.Errorf("client is sent to %s, before to %s", got, before)
	}
	st, err := r.client.Status(t.Context())
	if err != nil || !strings.Contains(st.Geo.LastError, "geo.mmdb") || !strings.Contains(strings.Join(st.Degraded, "\n"), "refused") {
		t.Errorf("status does not tell: %q, %q, %v", st.Geo.LastError, st.Degraded, err)
	}
	putGeo(t, database, "SG")
	if err := r.reloadGeo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.sentTo(t); got == before {
		t.Error("a good database after the bad one was not taken up")
	}
	if st, err := r.client.Status(t.Context()); err != nil || st.Geo.LastError != "" {
		t.Errorf("the old failure still shows: %q, %v", st.Geo.LastError, err)
	}
}

// A setup carries the stamps of what it read, taken before it was read.
func TestStampsTellReplacements(t *testing.T) {
	dir := t.TempDir()
	file, gone := filepath.Join(dir, "x.mmdb"), filepath.Join(dir, "gone.mmdb")
	write(t, file, "same size")
	before := stampsOf([]string{file, gone})
	if len(before) != 1 {
		t.Errorf("%d stamps, want 1: a missing file has none", len(before))
	}
	if again := stampsOf([]string{file, gone}); again[file] != before[file] {
		t.Error("a file that nobody touched has another stamp")
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	putFile(t, file, "size same")
	if err := os.Chtimes(file, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if after := stampsOf([]string{file}); after[file] == before[file] {
		t.Error("a replaced file of the same size and time has the same stamp")
	}
}

// A replacement while the node is still starting is taken up when it serves.
func TestGeoReplacedWhileStartingIsTakenUpLater(t *testing.T) {
	t.Parallel()
	n, config, database := geoNode(t, "127.9.53.")
	n.Close()
	n = nodeIn(t, n.opts.StateDir[:strings.LastIndex(n.opts.StateDir, "/")], strings.Replace(config, "wait: 100ms", "wait: 12s", 1))
	r := start(t, n)
	putGeo(t, database, "SG")
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })
	eventually(t, "the new database is in use", func() bool { return r.sentTo(t) == "127.9.53.90" })
}

// Fresh geo data does not hide that the newest reload of the file was refused.
func TestGeoReloadDoesNotHideARefusedReload(t *testing.T) {
	t.Parallel()
	n, _, _ := geoNode(t, "127.9.54.")
	r := start(t, n)
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })
	if _, err := r.reload(t, "sites: [", false); err == nil {
		t.Fatal("rubbish was taken")
	}
	if err := r.reloadGeo(t.Context()); err != nil {
		t.Fatal(err)
	}
	st, err := r.client.Status(t.Context())
	if err != nil || st.Config.LastError == "" {
		t.Errorf("the refused reload no longer shows: %v", err)
	}
	if valueOf(t, r.metrics.reloadOK) != 0 {
		t.Error("metric says the newest reload was taken")
	}
}

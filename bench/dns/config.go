package main

// The servers' configurations. %s and %[1]s are the folder of the run. Each has
// one worker, as it has one core, and answers without records nobody asked for
// where that can be chosen.

const pharosHead = `
cluster: {name: bench, port: 17949, wait: 1s, overrides_file: orders}
sites:
  fra: {location: FRA, nodes: {fra1: 127.8.0.1}}
  iad: {location: IAD, nodes: {iad1: 127.8.0.2}}
  sin: {location: SIN, nodes: {sin1: 127.8.0.3}}
services:
  web:
    policy: [{geo: {"continent:EU": [fra], "continent:AF": [fra], "continent:NA": [iad], "continent:SA": [iad], "continent:AS": [sin], "continent:OC": [sin], default: [fra]}}]
    check: {tcp: {}, every: 1m, vip_port: 5390}
    backends: {fra: ["127.8.0.10:5390"], iad: ["127.8.0.20:5390"], sin: ["127.8.0.30:5390"]}
    vip: {fra: 127.8.0.10, iad: 127.8.0.20, sin: 127.8.0.30}
dns: {listen: "127.8.0.1:5391"}
zones:
  bench.test:
    file: zone
    names:
`

const gdnsdText = `
options => { listen => [ 127.8.0.1:5392 ], udp_threads => 1, tcp_threads => 1, run_dir => "%[1]s/run", state_dir => "%[1]s/state", edns_client_subnet => true }
plugins => { geoip => {
  maps => { world => { geoip2_db => %[2]s/country.mmdb, datacenters => [fra, iad, sin], map => { %[3]s default => [fra, iad, sin] } } },
  resources => { web => { map => world, dcmap => { fra => 127.8.0.10, iad => 127.8.0.20, sin => 127.8.0.30 } } } } }
`

const knotConfig = `
server:
    listen: 127.8.0.1@5393
    rundir: "%[1]s/knot"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    edns-client-subnet: on
log:
  - target: stderr
    any: warning
database:
    storage: "%[1]s/knot/db"
mod-geoip:
  - id: geo
    config-file: "%[1]s/knot/geo.conf"
    ttl: 300
    mode: geodb
    geodb-file: "%[1]s/country.mmdb"
    geodb-key: [continent/code]
zone:
  - domain: bench.test
    file: "%[1]s/knot/zone"
    zonefile-sync: -1
    journal-content: none
    module: mod-geoip/geo
`

// knotPlain is Knot with nothing to do for other names.
const knotPlain = `
server:
    listen: 127.8.0.1@5398
    rundir: "%[1]s/knot/plain"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: warning
database:
    storage: "%[1]s/knot/plain/db"
zone:
  - domain: bench.test
    file: "%[1]s/zone"
    zonefile-sync: -1
    journal-content: none
`

const nsdConfig = `
server:
    ip-address: 127.8.0.1@5394
    server-count: 1
    username: ""
    chroot: ""
    zonesdir: "%[1]s"
    database: ""
    pidfile: "%[1]s/nsd/nsd.pid"
    xfrdfile: "%[1]s/nsd/xfrd.state"
    xfrdir: "%[1]s/nsd"
    zonelistfile: "%[1]s/nsd/zone.list"
    minimal-responses: yes
    rrl-ratelimit: 0
    tcp-count: 1000
remote-control:
    control-enable: no
zone:
    name: bench.test
    zonefile: zone
`

const pdnsConfig = `
launch=bind
bind-config=%[1]s/pdns/named.conf
local-address=127.8.0.1
local-port=5395
socket-dir=%[1]s/pdns
daemon=no
guardian=no
receiver-threads=1
distributor-threads=1
max-tcp-connections=1000
log-dns-queries=no
loglevel=3
security-poll-suffix=
`

const bindConfig = `
options {
  directory "%[1]s/bind"; pid-file none; session-keyfile none; managed-keys-directory "%[1]s/bind";
  listen-on port 5396 { 127.0.0.1; }; listen-on-v6 { none; };
  recursion no; minimal-responses yes; dnssec-validation no; notify no; tcp-clients 1000;
};
controls { };
zone "bench.test" { type primary; file "%[1]s/zone"; };
`

const coreFile = `
bench.test:5397 {
  bind 127.8.0.1
  file %[1]s/zone
}
`

package config

import "time"

// The defaults, all of them. The key table names them, so the walker fills them
// in and the JSON Schema shows them.
const (
	defaultClusterName = "pharos"
	defaultClusterPort = 7946
	defaultWait        = 5 * time.Second

	defaultEvery   = 2 * time.Second
	defaultTimeout = 2 * time.Second // or every, if that is less
	defaultJitter  = 0.1
	defaultRise    = 2
	defaultFall    = 3
	defaultRecheck = 250 * time.Millisecond // or every, if that is less
	defaultMethod  = "GET"
	defaultURLPath = "/"
	defaultWeight  = 1

	defaultMinSites     = 1
	defaultVersion      = 1
	defaultRCode        = "NOERROR"
	defaultFlapLimit    = 6
	defaultHalfLife     = time.Minute
	defaultPassiveFall  = 5
	defaultPassiveFor   = 10 * time.Second
	defaultAgeIntervals = 3 // a verdict file may be this many times every old

	defaultLoad         = 1.25
	defaultLimitWait    = time.Second
	defaultEjectErrors  = 5
	defaultEjectWindow  = 10 * time.Second
	defaultEjectMinWork = 20
	defaultEjectFor     = 30 * time.Second
	defaultEjectMax     = 5 * time.Minute
	defaultEjectShare   = 0.5

	defaultTTL    = 30 * time.Second
	defaultAnswer = answerSteered

	defaultDNSPort = 53
	defaultUDPSize = 1232
	defaultTCPMax  = 4096
	defaultTCPIdle = 10 * time.Second
	defaultECS     = true
	defaultShared  = false

	defaultIdle     = 10 * time.Minute
	defaultConnect  = 2 * time.Second
	defaultHTTPIdle = time.Minute
	defaultRedirect = 302

	defaultConnections  = 16384
	defaultHeaderBytes  = 16 << 10
	defaultHeaderFields = 128
	defaultURI          = 8 << 10
	defaultMinRate      = 128
	defaultStreams      = 128
	defaultHeaderTime   = 10 * time.Second
	defaultBodyTime     = 30 * time.Second
	defaultWriteTime    = time.Minute
	defaultResponseTime = time.Minute
	defaultTunnelTime   = time.Hour
	defaultSample       = 1.0

	defaultHello     = 5 * time.Second
	defaultBacklog   = 4096
	defaultKeepAlive = time.Minute
	defaultGoneAfter = 30 * time.Second
	defaultClients   = 65536

	defaultBGPPort       = 179
	defaultBGPListen     = true
	defaultLease         = 3 * time.Second
	defaultBFDInterval   = 300 * time.Millisecond
	defaultBFDMultiplier = 3
	defaultHold          = 9 * time.Second

	defaultRestart = time.Minute // graceful restart, where there is one

	defaultMaxPrefixes = 10_000
	defaultMaxPeers    = 16 // that connect from a prefix of peers
	defaultPrepend     = 3  // of a site that is not preferred
	defaultMED         = uint32(100)
	defaultLocalPref   = uint32(50)

	defaultWarmUp        = 0 * time.Second
	defaultRouteHalfLife = time.Minute

	defaultDepreference = 30 * time.Second
	defaultDrainOpen    = 5 * time.Minute
	defaultStop         = 15 * time.Second

	defaultLinger = 5 * time.Second
	defaultSocket = "/run/pharos/pharos.sock"
	defaultType   = "A"
)

// defaultStatus is 200–399: what a healthy backend answers.
func defaultStatus() []StatusRange { return []StatusRange{{From: 200, To: 399}} }

// defaultPolicy is [geo, nearest].
func defaultPolicy() []Policy { return []Policy{{Kind: PolicyGeo}, {Kind: PolicyNearest}} }

// defaultListen is every address of the machine, port 53.
func defaultListen() []Bind { return []Bind{{Port: defaultDNSPort}} }

# Sourced by the other scripts: where things are kept, and Debian's archive without root.

: "${SKEP_STATE:=${XDG_STATE_HOME:-$HOME/.local/state}/skep}"
SKEP_PKG=$SKEP_STATE/pkg	# packages unpacked for a user who cannot install them
export SKEP_STATE SKEP_PKG

# An ordinary user's PATH lacks where sgdisk is.
PATH=$PATH:/usr/sbin:/sbin

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# tool COMMAND...: run one that may be among the unpacked packages, and find its libraries there.
tool() { LD_LIBRARY_PATH=$SKEP_PKG/usr/lib/x86_64-linux-gnu "$@"; }

# quietly COMMAND...: its output is shown only if it fails.
quietly() {
	_log=$(mktemp) && if "$@" >"$_log" 2>&1; then rm -f "$_log"; else
		_rc=$?; cat "$_log" >&2; rm -f "$_log"; return $_rc
	fi
}

# private_apt DIR [SUITE...]: from here on, apt-get and apt-cache keep lists and cache in DIR,
# need no root and touch nothing of the system's. With SUITEs they see only those, from the
# archive that this machine's apt uses.
private_apt() {
	command -v apt-get >/dev/null || die "no apt-get here: this needs Debian 12 or FreeBSD"
	unset APT_CONFIG
	if [ $# -gt 1 ]; then
		_archive=$(apt-get update --print-uris 2>/dev/null |
			sed -n "s#^'\([^']*/debian\)/dists/.*#\1#p" | head -n 1)
		[ -n "$_archive" ] || die "no Debian archive among apt's sources"
	fi
	mkdir -p "$1/lists/partial" "$1/cache/archives/partial"
	cat >"$1/apt.conf" <<-E
		Dir::State "$1";
		Dir::State::status "/var/lib/dpkg/status";
		Dir::Cache "$1/cache";
		Dir::Cache::pkgcache "";
		Dir::Cache::srcpkgcache "";
		Debug::NoLocking "1";
		APT::Sandbox::User "$(id -un)";
		APT::Install-Recommends "0";
		Acquire::Languages "none";
		Acquire::GzipIndexes "true";
	E
	if [ $# -gt 1 ]; then
		cat >>"$1/apt.conf" <<-E
			Dir::Etc::sourcelist "$1/sources.list";
			Dir::Etc::sourceparts "/dev/null";
		E
		_dir=$1
		shift
		for _suite; do
			echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $_archive $_suite main"
		done >"$_dir/sources.list"
		set -- "$_dir"
	fi
	APT_CONFIG=$1/apt.conf
	export APT_CONFIG
	# A list read within the hour will do.
	[ -z "$(find "$1/lists" -name '*InRelease' -mmin -60)" ] || return 0
	say "reading the list of Debian's packages"
	# One source that does not answer is no reason to stop: what is needed is asked for next.
	apt-get -q update >"$1/update.log" 2>&1 || say "apt-get update had errors: $1/update.log"
}

# unpack DEB DIR [MEMBER...]: its files, or those that the patterns name. Debian 12 has merged
# /usr, so the directories at the top of DIR are links into DIR/usr.
unpack() {
	_deb=$1 _dir=$2
	shift 2
	for _d in bin sbin lib lib64; do
		mkdir -p "$_dir/usr/$_d"
		[ -e "$_dir/$_d" ] || ln -s "usr/$_d" "$_dir/$_d"
	done
	dpkg-deb --fsys-tarfile "$_deb" | tar -x -C "$_dir" --keep-directory-symlink --wildcards "$@"
}

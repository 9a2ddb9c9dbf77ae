# What follows is the same for every pod. It makes this network namespace hold the rules above, does nothing where it
# does already, and says in one line what it did. It needs a POSIX shell, iptables and, for an address or a route, ip.
# What it finds out by itself may be settled by QBITEL_IPV6 (auto, on, off) and QBITEL_BACKEND (auto, nft, legacy).
# Exit codes: 0 done; 2 an error, with one line of ours that says what to do.
set -uf
LC_ALL=C PATH=${PATH:-}:/usr/sbin:/sbin:/usr/bin:/bin
export LC_ALL PATH
ipv6=${QBITEL_IPV6:-$default_ipv6} backend=${QBITEL_BACKEND:-$default_backend}
nl='
'
IFS=$nl # lists are lines, because rules have spaces in them
# iptables-legacy wants a lock file in /run, which a container with a read-only root does not have.
[ -w /run ] || { XTABLES_LOCKFILE=/dev/null && export XTABLES_LOCKFILE; }

die() {
    leak=
    [ "$guarded" ] && leak='; until it succeeds the guard drops new connections, so that nothing leaks'
    printf '%s\n' "qbitel-init: $1$leak" >&2
    exit 2
}

refused() {
    die "$program refused the rules (its words are above): it needs NET_ADMIN, NET_RAW and the kernel's nat table"
}

# Sets $mesh to whose the chain $1 is: ours, that of another mesh, or nobody's that matters. Only a name that is safe
# within the name of a variable is anybody's.
find_mesh() {
    case $1 in
    *[!A-Za-z0-9_]*) mesh= ;;
    *) name_mesh "$1" ;;
    esac
    case $mesh in
    '') ;;
    ours) stood=yes ;;
    *) stood=yes other=$mesh here=$here$mesh$nl ;;
    esac
}

# The same for the rule $1 in a built-in chain: Istio writes some straight there. One that is Istio's only where Istio is
# waits in $beside.
find_mesh_of_rule() {
    case $chain in PREROUTING | OUTPUT) name_rule "$1" ;; esac
    case $mesh in
    '') ;;
    beside) beside=$beside$table' '$1$nl mesh= ;;
    *) stood=yes other=$mesh here=$here$mesh$nl ;;
    esac
}

# Takes $2, what iptables-save printed, apart into variables that end in $1 and the table: what there is of ours.
take_apart() {
    table='' past=$nl here='' beside=''
    for line in $2; do
        case $line in
        '*'*)
            table=${line#?} past=$nl
            case $table in *[!a-z]*) die "cannot read what iptables-save printed: $line" ;; esac
            ;;
        '# Table '*' is incompatible'*)
            table=${line#*\`}
            die "$program cannot list the table ${table%%\'*}, because somebody has put rules there that only nft can write: \
see 'nft list ruleset', delete those rules or move them to a table of another name"
            ;;
        :*)
            chain=${line#:} chain=${chain%% *}
            find_mesh "$chain"
            [ "$mesh" ] && eval "names_$1_$table=\${names_$1_$table-}\$chain\$nl mine_$1=yes"
            ;;
        '-A '*)
            chain=${line#-A } chain=${chain%% *}
            eval "any_$1=yes"
            find_mesh "$chain"
            if [ "$mesh" ]; then
                eval "size_$1=\$((\${size_$1-0} + 1)) have_$1_${table}_$chain=\${have_$1_${table}_$chain-}\$line\$nl"
                continue
            fi
            # A rule in somebody else's chain is ours if it leads to one of ours; such a rule ends in its target.
            target=${line##* -[jg] }
            find_mesh "$target"
            [ "$mesh" ] || find_mesh_of_rule "$line"
            if [ -z "$mesh" ]; then
                past=$past$chain$nl
                continue
            fi
            if [ "$target" = "$guard_chain" ]; then
                eval "guards_$1_$table=\${guards_$1_$table-}\$line\$nl"
            else
                eval "size_$1=\$((\${size_$1-0} + 1)) jumps_$1_$table=\${jumps_$1_$table-}\$line\$nl"
            fi
            # Somebody else's rule before ours may let connections slip past.
            case $past in *"$nl$chain$nl"*) eval "displaced_$1=yes displaced_$1_$table=yes" ;; esac
            ;;
        esac
    done
    case $here in *Istio*) ;; *) return 0 ;; esac
    for line in $beside; do
        table=${line%% *} line=${line#* }
        eval "size_$1=\$((\${size_$1-0} + 1)) jumps_$1_$table=\${jumps_$1_$table-}\$line\$nl"
    done
}

# Asks nft for its tables, among which another mesh may have some that no iptables shows. It names those of iptables-nft,
# too, whose rules need not be read where there is none: so a fresh pod takes no program more.
look_natively() {
    natively='' native='' tables_of_nft=
    command -v nft >/dev/null && tables_of_nft=$(nft list tables 2>/dev/null) && natively=yes
    for line in $tables_of_nft; do
        case $line in
        *[!a-z0-9\ -]*) continue ;;
        'table ip6 '*) pristine= ;;
        esac
        name_table "${line##* }"
        [ "$mesh" ] && other=$mesh native="${native}delete $line$nl"
    done
}

# Reads the rules of back end $1 and IP version $2 into variables that end in $3; fails where it cannot.
look() {
    case $2 in
    4) program=iptables-$1-save tables=/proc/net/ip_tables_names ;;
    *) program=ip6tables-$1-save tables=/proc/net/ip6_tables_names ;;
    esac
    command -v "$program" >/dev/null || return 1
    # The kernel lists the tables of legacy, and nft its own: where there are none, there is no rule either. For IPv6 that
    # would not tell whether ip6tables works.
    saved='' any=yes
    case $1$2$natively in
    legacy*) [ -r $tables ] && read -r first <$tables || any= ;;
    nft4yes) case $nl$tables_of_nft in *"${nl}table ip "*) ;; *) any= ;; esac ;;
    esac
    [ -z "$any" ] || saved=$("$program" 2>/dev/null) || return 1
    eval "readable_$3=yes"
    [ "$saved" ] && pristine=
    take_apart "$3" "$saved"
}

# Whether table $3, read into $1, is not as the plan of IP version $2 wants it; version 0 wants nothing. The guard of a
# run that failed is left to lower_guard.
differs() {
    eval "present=\${names_$1_$3-} standing=\${jumps_$1_$3-} displaced=\${displaced_$1_$3-} guards=\${guards_$1_$3-}"
    eval "wanted=\${chains_$2_$3-} jumps=\${jumps_of_$2_$3-}"
    [ "$displaced" ] || [ "$standing" != "$jumps" ] && return 0
    for name in $present; do
        case $nl$wanted in
        *"$nl$name$nl"*) ;;
        *) [ "$2$name" = "0$guard_chain" ] || [ "$name" != "$guard_chain" ] && return 0 ;;
        esac
    done
    for name in $wanted; do
        case $nl$present in *"$nl$name$nl"*) ;; *) return 0 ;; esac
        eval "[ \"\${have_$1_$3_$name-}\" = \"\$rules_$2_$3_$name\" ]" || return 0
    done
    return 1
}

# Adds to $text what makes table $3, read into $1, as the plan of IP version $2 wants it. Comes after `differs`.
change() {
    [ "$2" = 0 ] && standing=$standing$guards
    text=$text*$3$nl gone=
    for name in $present; do
        case $nl$wanted in *"$nl$name$nl"*) continue ;; esac
        [ "$2" != 0 ] && [ "$name" = "$guard_chain" ] && continue
        gone=$gone$name$nl text="$text:$name - [0:0]$nl"
        [ "$name" = "$mark_chain" ] && unrouted=$unrouted$family$nl
    done
    # `:` makes or empties a chain, -N only makes it: what was taken for granted is checked so.
    case $2$assumed in
    6yes) for name in $wanted; do text="$text-N $name$nl"; done ;;
    *) for name in $wanted; do text="$text:$name - [0:0]$nl"; done ;;
    esac
    for line in $standing; do text="$text-D${line#-A}$nl"; done
    for name in $wanted; do eval "text=\$text\$rules_$2_$3_$name"; done
    insert "$jumps"
    for name in $gone; do text="$text-X $name$nl"; done
    text=${text}COMMIT$nl
}

# Adds to $text the jumps $1 as the first rules of their chains, in this order.
insert() {
    hook=
    for line in $1; do
        line=${line#-A }
        [ "${line%% *}" = "$hook" ] && place=$((place + 1)) || place=1
        hook=${line%% *} text="$text-I ${line%% *} $place ${line#* }$nl"
    done
}

# Applies $text to back end $1, IP version $2. Each table in it is one transaction in the kernel.
restore() {
    case $2 in 4) program=iptables-$1-restore ;; *) program=ip6tables-$1-restore ;; esac
    "$program" -w "$lock_wait" --noflush <<EOF
$text
EOF
}

raise_guard() {
    for family in $families; do
        eval "standing=\${guards_${use}_${family}_mangle-}"
        text="*mangle$nl:$guard_chain - [0:0]$nl"
        for line in $standing; do text="$text-D${line#-A}$nl"; done
        text=$text$guard_rules
        insert "$guard_jumps"
        text=${text}COMMIT$nl
        restore "$use" "$family" || die "$program refused the guard; its words are above"
        guarded=yes
    done
}

lower_guard() {
    for family in $families; do
        text="*mangle$nl:$guard_chain - [0:0]$nl"
        for line in $guard_jumps; do text="$text-D ${line#-A }$nl"; done
        text="$text-X $guard_chain${nl}COMMIT$nl"
        restore "$use" "$family" || die "$program did not lower the guard; its words are above"
    done
    guarded=
}

# Sets $plan to the IP version whose plan back end $1 should hold for version $2, or to 0.
find_plan() {
    plan=0
    [ "$1" = "$use" ] && case $nl$families$nl in *"$nl$2$nl"*) plan=$2 ;; esac
}

# Compares everything with its plan: leaves what would change in $text_BACKEND_VERSION, and how many transactions that is.
compare() {
    transactions=0
    for kind in nft legacy; do
        for family in 4 6; do
            text=
            eval "known=\${readable_${kind}_$family-}"
            find_plan $kind $family
            for table in ${known:+$every_table}; do
                differs ${kind}_$family $plan "$table" || continue
                change ${kind}_$family $plan "$table"
                transactions=$((transactions + 1))
            done
            eval "text_${kind}_$family=\$text"
            # Left behind by a run that failed: then it is up already, perhaps in one IP version only.
            eval "present=\${names_${kind}_${family}_mangle-}"
            case $plan$nl$present in [46]"$nl"*"$guard_chain$nl"*) guarded=yes ;; esac
        done
    done
}

# Applies what `compare` found, the back end in use first. Fails if the very first transaction was refused.
swap() {
    changed=
    for kind in $use $unused; do
        for family in 4 6; do
            eval "text=\$text_${kind}_$family"
            [ "$text" ] || continue
            if [ "$family$assumed" = 6yes ]; then
                # Somebody was here before, or there is no IPv6 in this kernel: look properly. IPv4's rules stand now.
                restore "$kind" "$family" 2>/dev/null || main
                continue
            fi
            if ! restore "$kind" "$family"; then
                [ -z "$changed$guarded" ] && return 1
                refused
            fi
            changed="$changed$kind $family$nl"
        done
    done
}

# Reads again what was changed: everything must be there, and first.
verify() {
    for pair in $changed; do
        kind=${pair% *} family=${pair#* }
        find_plan "$kind" "$family"
        look "$kind" "$family" "after_${kind}_$family" || die "$program cannot be read any more"
        eval "seen=\${size_after_${kind}_$family-0} wanted=\$size_of_$plan displaced=\${displaced_after_${kind}_$family-}"
        [ "$seen$displaced" = "$wanted" ] ||
            die "the rules do not stand: something else changes those of ${program%-save} at the same time; try again"
    done
}

find_ipv6() {
    reachable='' link_local='' source=''
    [ -r /proc/net/if_inet6 ] || return 0
    # 128 bits in hexadecimal, interface's index, prefix length, scope, flags, interface (proc_pid_net(5)).
    while IFS=' ' read -r address index length scope flags interface; do
        case $address$interface in
        00000000000000000000000000000001*) ;;
        "$source_as_hex"lo) source=yes ;;
        fe[89ab]*) link_local=yes ;;
        *) reachable=yes ;;
        esac
    done </proc/net/if_inet6
}

# The back end that holds our rules, else any rules, else nft where the kernel has it, else legacy.
choose() {
    use=$backend
    if [ "$backend" = auto ]; then
        use=${readable_legacy_4:+legacy}
        [ "${readable_nft_4-}" ] && use=nft
        [ "${any_legacy_4-}${any_legacy_6-}" ] && [ -z "${any_nft_4-}${any_nft_6-}" ] && use=legacy
        [ "${mine_legacy_4-}${mine_legacy_6-}" ] && use=legacy
        [ "${mine_nft_4-}${mine_nft_6-}" ] && use=nft
    fi
    case $use in
    nft) unused=legacy usable=${readable_nft_4-} usable_6=${readable_nft_6-} ;;
    legacy) unused=nft usable=${readable_legacy_4-} usable_6=${readable_legacy_6-} ;;
    *) usable= ;;
    esac
    [ "$usable" ] ||
        die "no packet filter ($backend) works here: install iptables, and give the container NET_ADMIN and NET_RAW"
}

choose_families() {
    families=4
    case $ipv6 in
    off) return 0 ;;
    auto) [ "$reachable$link_local" ] || return 0 ;;
    on) reachable=yes ;;
    *) die "QBITEL_IPV6: '$ipv6' is not auto, on or off" ;;
    esac
    [ "$assumed" ] && command -v "ip6tables-$use-restore" >/dev/null && usable_6=yes && eval "readable_${use}_6=yes"
    if [ "$usable_6" ]; then
        families=4${nl}6
    elif [ "$reachable" ]; then
        die "IPv6 cannot be intercepted, but the pod has it: ip6tables-$use does not work; mend that, or say QBITEL_IPV6=off"
    else
        echo "qbitel-init: IPv6 is not intercepted: only link-local addresses, and ip6tables-$use does not work" >&2
    fi
}

# What connections need once they are captured, before they are.
prepare() {
    case $families$source in
    4 | *yes) ;;
    *)
        ip -6 address add "$source_address" dev lo || die "lo does not get $source_address: is IPv6 off on lo?"
        source=yes
        ;;
    esac
    for family in ${routed:+$families}; do
        ip -$family route replace local default dev lo table "$routed_table" || die 'TPROXY does not get its route'
        case $(ip -$family rule show) in
        *"fwmark $routed_mark lookup $routed_table"*) continue ;;
        esac
        ip -$family rule add priority "$routed_priority" fwmark "$routed_mark" lookup "$routed_table" ||
            die 'TPROXY does not get its rule'
    done
}

# The tables that nft made for another mesh, in one transaction. They capture until ours do.
remove_tables() {
    nft -f - <<EOF || die "nft did not delete the tables of $other; its words are above"
$native
EOF
}

# What nothing needs any more: the routing of Istio's TPROXY, and of an earlier one of ours.
tidy() {
    case $other in Istio) others=4${nl}6 ;; *) others= ;; esac
    for family in $others; do
        ip -$family rule del fwmark "$istio_mark" lookup "$istio_table" 2>/dev/null
        ip -$family route del local default dev lo table "$istio_table" 2>/dev/null
    done
    for family in $unrouted; do
        ip -$family rule del priority "$routed_priority" fwmark "$routed_mark" lookup "$routed_table"
        ip -$family route del local default dev lo table "$routed_table"
    done
}

main() {
    guarded='' stood='' other='' unrouted='' assumed='' pristine=yes readable_nft_6='' readable_legacy_6=''
    look_natively
    look nft 4 nft_4
    look legacy 4 legacy_4
    if [ "$reachable$link_local" ] || [ "$ipv6" = on ]; then
        # Whoever makes rules makes those of IPv4 first. Where there is not even an empty table of them, a look at
        # those of IPv6 would cost a program for nothing.
        if [ "$pristine" ] && [ "$ipv6" != off ]; then
            assumed=yes
        else
            look nft 6 nft_6
            look legacy 6 legacy_6
        fi
    fi
    [ -z "$other" ] || [ "$reconcile" ] ||
        die "$other intercepts this pod already, and two meshes cannot share it: take the pod out of $other first"
    choose
    choose_families
    prepare
    compare
    if [ $transactions = 0 ] && [ -z "$guarded$native" ]; then
        echo "qbitel-init: interception was in place already; nothing changed ($use)"
        exit 0
    fi
    # One transaction needs no guard. Where nothing stood, everything was open until now: it would only cost time.
    [ "$stood" ] && { [ "$guarded" ] || [ $transactions -gt 1 ]; } && raise_guard
    if ! swap; then
        # Nothing has changed yet. A kernel may list nft's rules and still have no nat table for them.
        [ "$backend$use${readable_legacy_4-}$stood" = autonftyes ] || refused
        backend=legacy
        choose
        choose_families
        compare
        swap || refused
    fi
    [ "$guarded" ] && lower_guard
    natively='' # what nft told is of the time before
    # Where there was no rule at all there is nobody who could change ours; that the kernel took them is proof enough,
    # and reading them back would take a third of the time.
    [ "${any_nft_4-}${any_nft_6-}${any_legacy_4-}${any_legacy_6-}" ] && verify
    [ "$native" ] && remove_tables
    tidy
    case $families in 4) and= ;; *) and=' and ipv6' ;; esac
    echo "qbitel-init: interception of ipv4$and is in place ($use)"
    exit 0
}

find_ipv6
main

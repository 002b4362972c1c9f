//! Trees of modules made of nothing but `.modinfo`.

use super::*;
use crate::build_initrd::tests::made::add_module;

struct Tree {
    _directory: tempfile::TempDir,
    root: PathBuf,
}

fn tree() -> Tree {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("1.2.3");
    add_module(&root, "net/virtio_net.ko", &["depends=net-failover,virtio"]);
    add_module(&root, "net/net_failover.ko", &["depends=failover"]);
    add_module(&root, "net/failover.ko", &[]);
    add_module(&root, "virtio/virtio.ko", &["depends="]);
    add_module(&root, "scsi/sd_mod.ko", &["depends=t10-pi"]);
    let soft = "softdep=pre: crct10dif nowhere post: late";
    add_module(&root, "lib/t10-pi.ko", &[soft]);
    add_module(&root, "crypto/generic.ko", &["alias=crct10dif"]);
    add_module(&root, "crypto/late.ko", &[]);
    Tree { _directory: directory, root }
}

fn names(selection: &Selection) -> Vec<&str> {
    selection.modules.iter().map(|module| module.name.as_str()).collect()
}

fn select(root: &Path, drivers: &[&str]) -> Result<Selection> {
    let drivers: Vec<(String, Option<&str>)> =
        drivers.iter().map(|&name| (name.to_owned(), None)).collect();
    ModuleTree::open(root)?.select(&drivers, None)
}

#[test]
fn what_a_driver_needs_is_loaded_before_it_and_once() {
    let tree = tree();
    let selection =
        select(&tree.root, &["virtio_net", "sd_mod", "virtio"]).unwrap();
    assert_eq!(
        names(&selection),
        [
            "failover",
            "net_failover",
            "virtio",
            "virtio_net",
            "generic",
            "t10_pi",
            "late",
            "sd_mod"
        ]
    );
    assert!(selection.missing.is_empty());
    assert_eq!(selection.modules[5].path, "kernel/lib/t10-pi.ko");
}

#[test]
fn the_alias_list_of_depmod_serves_as_well() {
    let tree = tree();
    let list = "# made by depmod\nalias crct10dif late\nalias pci:v*\n";
    fs::write(tree.root.join("modules.alias"), list).unwrap();
    let selection = select(&tree.root, &["t10_pi"]).unwrap();
    assert_eq!(names(&selection), ["late", "t10_pi"]);
}

#[test]
fn built_in_drivers_are_told_from_missing_ones() {
    let tree = tree();
    let list = "kernel/drivers/nvme/host/nvme.ko\nkernel/fs/fscache.ko\n";
    fs::write(tree.root.join("modules.builtin"), list).unwrap();
    let aliases = b"crc32c_generic.alias=crypto-crc32c\0x.license=GPL\0";
    fs::write(tree.root.join("modules.builtin.modinfo"), aliases).unwrap();
    let selection =
        select(&tree.root, &["nvme", "crypto_crc32c", "ahci"]).unwrap();
    assert_eq!(selection.built_in, ["nvme", "crypto_crc32c"]);
    assert_eq!(selection.missing, ["ahci"]);
}

#[test]
fn the_kernel_configuration_tells_built_in_drivers_too() {
    let tree = tree();
    let tree = ModuleTree::open(&tree.root).unwrap();
    let config = KernelConfig::parse(
        Path::new("config"),
        "CONFIG_BLK_DEV_NVME=y\nCONFIG_SATA_AHCI=m\n",
    );
    let drivers = [
        ("nvme".to_owned(), Some("CONFIG_BLK_DEV_NVME")),
        ("ahci".to_owned(), Some("CONFIG_SATA_AHCI")),
    ];
    let selection = tree.select(&drivers, Some(&config)).unwrap();
    assert_eq!(selection.built_in, ["nvme"]);
    assert_eq!(selection.missing, ["ahci"]);
}

#[test]
fn a_driver_without_what_it_needs_is_missing_by_name() {
    let tree = tree();
    add_module(&tree.root, "net/a.ko", &["depends=b"]);
    add_module(&tree.root, "net/b.ko", &["depends=gone"]);
    let selection = select(&tree.root, &["a", "b", "virtio"]).unwrap();
    assert_eq!(names(&selection), ["virtio"]);
    assert!(selection.missing[0].starts_with("a (needs gone"));
    assert!(selection.missing[1].starts_with("b (needs gone"));
}

#[test]
fn modules_that_need_each_other_do_not_turn_us_in_circles() {
    let tree = tree();
    add_module(&tree.root, "net/a.ko", &["depends=b", "softdep=pre: a"]);
    add_module(&tree.root, "net/b.ko", &["depends=a"]);
    let selection = select(&tree.root, &["a"]).unwrap();
    assert_eq!(names(&selection), ["b", "a"]);
}

#[test]
fn a_module_for_another_kernel_or_none_at_all_is_named() {
    let tree = tree();
    let alien = ["vermagic=4.5.6 SMP "];
    add_module(&tree.root, "net/alien.ko", &alien);
    let error = select(&tree.root, &["alien"]).unwrap_err().to_string();
    assert!(error.contains("4.5.6") && error.contains("1.2.3"), "{error}");

    fs::write(tree.root.join("kernel/net/junk.ko"), b"junk").unwrap();
    let error = select(&tree.root, &["junk"]).unwrap_err();
    assert!(format!("{error:#}").contains("junk.ko"), "{error:#}");
}

#[test]
fn an_updated_module_replaces_the_one_that_came_along() {
    let tree = tree();
    let updates = tree.root.join("updates/dkms");
    fs::create_dir_all(&updates).unwrap();
    let from = tree.root.join("kernel/virtio/virtio.ko");
    fs::copy(from, updates.join("virtio.ko")).unwrap();
    let selection = select(&tree.root, &["virtio"]).unwrap();
    assert_eq!(selection.modules[0].path, "updates/dkms/virtio.ko");
}

#[test]
fn a_directory_without_modules_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    assert!(ModuleTree::open(directory.path()).is_err());
    assert!(ModuleTree::open(&directory.path().join("gone")).is_err());
}

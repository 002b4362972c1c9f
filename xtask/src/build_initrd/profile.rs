//! Which drivers a rescue initrd carries: the ones that lead to disks, to
//! consoles and, for the larger profiles, to networks of servers.
//!
//! Left out on purpose: md and dm (the host maps what they hold, and an array
//! that the kernel assembles may start to resynchronise, which writes),
//! bonding and VLANs (the agent configures plain interfaces; a loaded bonding
//! driver adds an interface that nothing is behind).

use std::str::FromStr;

use anyhow::{Result, bail, ensure};

use super::modinfo::canonical;

/// A driver's module name and the configuration option that builds it: the
/// option tells built-in drivers from absent ones where the modules
/// directory has no `modules.builtin`.
pub(crate) type Driver = (&'static str, &'static str);

/// Virtual machines' disks and consoles.
const VIRTUAL: &[Driver] = &[
    ("virtio_pci", "CONFIG_VIRTIO_PCI"),
    ("virtio_mmio", "CONFIG_VIRTIO_MMIO"),
    ("virtio_console", "CONFIG_VIRTIO_CONSOLE"),
    ("virtio_blk", "CONFIG_VIRTIO_BLK"),
    ("virtio_scsi", "CONFIG_SCSI_VIRTIO"),
    ("vmw_pvscsi", "CONFIG_VMWARE_PVSCSI"),
    ("hv_storvsc", "CONFIG_HYPERV_STORAGE"),
    ("xen_blkfront", "CONFIG_XEN_BLKDEV_FRONTEND"),
    ("mptspi", "CONFIG_FUSION_SPI"),
    ("ata_piix", "CONFIG_ATA_PIIX"),
];

/// SATA and NVMe, and the driver that makes disks of all SCSI ones.
const SATA_NVME: &[Driver] = &[
    ("sd_mod", "CONFIG_BLK_DEV_SD"),
    ("nvme", "CONFIG_BLK_DEV_NVME"),
    ("ahci", "CONFIG_SATA_AHCI"),
    ("isci", "CONFIG_SCSI_ISCI"),
    ("vmd", "CONFIG_VMD"),
];

/// SAS adapters and RAID controllers.
const RAID_SAS: &[Driver] = &[
    ("megaraid_sas", "CONFIG_MEGARAID_SAS"),
    ("mpt3sas", "CONFIG_SCSI_MPT3SAS"),
    ("hpsa", "CONFIG_SCSI_HPSA"),
    ("smartpqi", "CONFIG_SCSI_SMARTPQI"),
    ("aacraid", "CONFIG_SCSI_AACRAID"),
    ("mptsas", "CONFIG_FUSION_SAS"),
    ("mvsas", "CONFIG_SCSI_MVSAS"),
    ("pm80xx", "CONFIG_SCSI_PM8001"),
    ("arcmsr", "CONFIG_SCSI_ARCMSR"),
    ("3w_sas", "CONFIG_SCSI_3W_SAS"),
];

/// USB disks and USB serial adapters, eMMC.
const USB_MMC: &[Driver] = &[
    ("ehci_pci", "CONFIG_USB_EHCI_PCI"),
    ("uhci_hcd", "CONFIG_USB_UHCI_HCD"),
    ("xhci_pci", "CONFIG_USB_XHCI_PCI"),
    ("usb_storage", "CONFIG_USB_STORAGE"),
    ("uas", "CONFIG_USB_UAS"),
    ("ftdi_sio", "CONFIG_USB_SERIAL_FTDI_SIO"),
    ("pl2303", "CONFIG_USB_SERIAL_PL2303"),
    ("cp210x", "CONFIG_USB_SERIAL_CP210X"),
    ("sdhci_pci", "CONFIG_MMC_SDHCI_PCI"),
    ("sdhci_acpi", "CONFIG_MMC_SDHCI_ACPI"),
    ("mmc_block", "CONFIG_MMC_BLOCK"),
];

/// Network adapters, and the raw sockets that DHCP uses.
const NETWORK: &[Driver] = &[
    ("af_packet", "CONFIG_PACKET"),
    ("virtio_net", "CONFIG_VIRTIO_NET"),
    ("vmxnet3", "CONFIG_VMXNET3"),
    ("hv_netvsc", "CONFIG_HYPERV_NET"),
    ("xen_netfront", "CONFIG_XEN_NETDEV_FRONTEND"),
    ("ena", "CONFIG_ENA_ETHERNET"),
    ("e1000", "CONFIG_E1000"),
    ("e1000e", "CONFIG_E1000E"),
    ("igb", "CONFIG_IGB"),
    ("igc", "CONFIG_IGC"),
    ("broadcom", "CONFIG_BROADCOM_PHY"),
    ("tg3", "CONFIG_TIGON3"),
    ("bnx2", "CONFIG_BNX2"),
    ("r8169", "CONFIG_R8169"),
    ("ixgbe", "CONFIG_IXGBE"),
    ("i40e", "CONFIG_I40E"),
    ("ice", "CONFIG_ICE"),
    ("bnxt_en", "CONFIG_BNXT"),
    ("bnx2x", "CONFIG_BNX2X"),
    ("mlx4_en", "CONFIG_MLX4_EN"),
    ("mlx5_core", "CONFIG_MLX5_CORE"),
    ("qede", "CONFIG_QEDE"),
    ("be2net", "CONFIG_BE2NET"),
    ("cxgb4", "CONFIG_CHELSIO_T4"),
    ("sfc", "CONFIG_SFC"),
    ("atlantic", "CONFIG_AQTION"),
    ("enic", "CONFIG_ENIC"),
];

/// Fibre Channel adapters. iSCSI needs a login that the agent cannot do.
const FIBRE_CHANNEL: &[Driver] = &[
    ("qla2xxx", "CONFIG_SCSI_QLA_FC"),
    ("lpfc", "CONFIG_SCSI_LPFC"),
    ("fnic", "CONFIG_FCOE_FNIC"),
];

/// The choice of drivers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Profile {
    /// Disks and consoles: the line to the desk is a serial one.
    Serial,
    /// The same and network adapters.
    Net,
    /// The same and Fibre Channel.
    Full,
    /// These modules.
    List(Vec<String>),
}

impl Profile {
    /// The drivers to load, in order, by canonical name, with the option that
    /// builds each where it is known.
    pub(crate) fn drivers(&self) -> Vec<(String, Option<&'static str>)> {
        let groups: &[&[Driver]] = match self {
            Self::Serial => &[VIRTUAL, SATA_NVME, RAID_SAS, USB_MMC],
            Self::Net => &[VIRTUAL, SATA_NVME, RAID_SAS, USB_MMC, NETWORK],
            Self::Full => {
                &[VIRTUAL, SATA_NVME, RAID_SAS, USB_MMC, NETWORK, FIBRE_CHANNEL]
            }
            Self::List(names) => {
                return names
                    .iter()
                    .map(|name| (name.clone(), option_of(name)))
                    .collect();
            }
        };
        groups
            .iter()
            .flat_map(|group| group.iter())
            .map(|&(name, option)| (name.to_owned(), Some(option)))
            .collect()
    }
}

fn option_of(name: &str) -> Option<&'static str> {
    [VIRTUAL, SATA_NVME, RAID_SAS, USB_MMC, NETWORK, FIBRE_CHANNEL]
        .iter()
        .flat_map(|group| group.iter())
        .find(|(driver, _)| *driver == name)
        .map(|&(_, option)| option)
}

impl FromStr for Profile {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "serial" => Self::Serial,
            "net" => Self::Net,
            "full" => Self::Full,
            list => {
                let names: Vec<String> =
                    list.split(',').map(canonical).collect();
                for name in &names {
                    ensure!(
                        !name.is_empty(),
                        "an empty name in the list of modules"
                    );
                    if !name
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || c == '_')
                    {
                        bail!(
                            "{name:?} is neither a profile (serial, net, \
                             full) nor a module's name"
                        );
                    }
                }
                Self::List(names)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_profiles_hold_the_smaller_ones() {
        let (serial, net, full) = (
            Profile::Serial.drivers(),
            Profile::Net.drivers(),
            Profile::Full.drivers(),
        );
        assert!(net.starts_with(&serial) && full.starts_with(&net));
        assert!(!serial.iter().any(|(name, _)| name == "virtio_net"));
        assert!(net.iter().any(|(name, _)| name == "virtio_net"));
    }

    #[test]
    fn every_driver_stands_once_and_by_its_canonical_name() {
        let mut names: Vec<String> =
            Profile::Full.drivers().into_iter().map(|(name, _)| name).collect();
        assert!(names.iter().all(|name| *name == canonical(name)));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_list_is_taken_as_it_is_typed() {
        let list: Profile = "virtio-net,ahci,foo".parse().unwrap();
        assert_eq!(
            list.drivers(),
            [
                ("virtio_net".to_owned(), Some("CONFIG_VIRTIO_NET")),
                ("ahci".to_owned(), Some("CONFIG_SATA_AHCI")),
                ("foo".to_owned(), None),
            ]
        );
        for bad in ["", "ahci,", "../x", "a b"] {
            assert!(bad.parse::<Profile>().is_err(), "{bad:?}");
        }
    }
}
